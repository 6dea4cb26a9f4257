"""Sizes as sums, by which two sizes are proven to be equal, or to differ by a number.

Theano writes one size in many ways: an Alloc's rows may be 2 + rows(x), while shape inference has (rows(z) - 3) + 1 for
the rows of x and a slice ends at rows(z) - 1. As a sum of unknowns and a number, each multiplied out, every way is the same.
"""
from typing import FrozenSet, NamedTuple, Tuple

from theano import scalar
from theano.scalar import ScalarOp
from theano.tensor import discrete_dtypes
from theano.tensor.elemwise import Elemwise

MOST_WAYS = 50  # values whose sizes are asked for, to prove that of another


class Sum(NamedTuple):
    """A number plus unknowns, each of which has a whole coefficient other than 0."""

    terms: FrozenSet[Tuple[int, int]]  # (unknown, coefficient)
    number: int

    def plus(self, other, times=1):
        """This sum plus `times` another one."""
        terms = dict(self.terms)
        for unknown, coefficient in other.terms:
            terms[unknown] = terms.get(unknown, 0) + times * coefficient
        return Sum(frozenset(item for item in terms.items() if item[1]), self.number + times * other.number)

    def minus(self, other):
        return self.plus(other, -1)

    @property
    def known(self):
        """The sum as a number, None if it has unknowns."""
        return None if self.terms else self.number


def number(value):
    """The sum that is a number."""
    return Sum(frozenset(), value)


def _product(parts):
    factors = [part.known for part in parts if not part.terms]
    if len(factors) + 1 < len(parts):
        return None
    result = next((part for part in parts if part.terms), number(1))
    for factor in factors:
        result = number(0).plus(result, factor)
    return result


def _total(parts):
    result = number(0)
    for part in parts:
        result = result.plus(part)
    return result


# What is a sum if its operands are; None where it is not. Any other function of sums is an unknown.
_RULES = {
    scalar.Add: _total,
    scalar.Sub: lambda parts: parts[0].minus(parts[1]),
    scalar.Neg: lambda parts: number(0).minus(parts[0]),
    scalar.Mul: _product,
    scalar.IntDiv: lambda parts: parts[0] if parts[1].known == 1 else None,
    scalar.Cast: lambda parts: parts[0],
    scalar.Identity: lambda parts: parts[0],
}


class Sums:
    """Sizes of the values of one function graph, as sums.

    Parameters
    ----------
    shapes : rewrites.shapes.Shapes
    """

    def __init__(self, shapes):
        self.shapes = shapes
        self._sums = {}
        self._unknowns = {}  # what is unknown -> its number
        self._sizes = set()  # sums that are sizes of values
        self._axes = set()  # numbers of the unknowns that are sizes of inputs

    def size(self, variable, axis):
        """One size of a value; None where there is no expression for it."""
        if variable.broadcastable[axis]:
            return number(1)
        symbolic = self.shapes.symbolic(variable, axis)
        if symbolic is None:
            return None
        size = self.of(symbolic)
        self._sizes.add(size)
        return size

    def is_size(self, total, variable, axis):
        """Whether a sum is proven to be one size of a value: by shape inference of that, or of what it is computed from.

        Of elementwise ops, all operands that are not broadcast have the size of the result. Theano may know the result's by
        another value that it found to be the same, as a sum that leads nowhere.
        """
        known, waiting = {variable}, [variable]
        while waiting:
            variable = waiting.pop()
            if self.size(variable, axis) == total:
                return True
            node = variable.owner
            if node is not None and isinstance(node.op, Elemwise) and len(known) < MOST_WAYS:
                operands = [x for x in node.inputs if not x.broadcastable[axis] and x not in known]
                known.update(operands)
                waiting += operands
        return False

    def never_negative(self, total):
        """Whether a sum is proven to be 0 at least: it is a size that was asked for, or adds up from sizes."""
        return total in self._sizes or (total.number >= 0 and all(unknown in self._axes and coefficient > 0
                                                                  for unknown, coefficient in total.terms))

    def of(self, scalar_variable):
        """An integer scalar as a sum.

        Not by recursion, as expressions are as deep as networks. One that leads back to itself, through Shape, is unknown.
        """
        begun, waiting = set(), [scalar_variable]
        while waiting:
            size = waiting[-1]
            origin = self.shapes.origin(size)
            parts = origin.owner.inputs if _is_arithmetic(origin) else ()
            missing = [part for part in parts if part not in self._sums and part not in begun]
            if missing and size not in begun:
                begun.add(size)
                waiting.extend(missing)
                continue
            waiting.pop()
            if size not in self._sums:
                self._sums[size] = self._combined(origin, parts)
        return self._sums[scalar_variable]

    def _combined(self, origin, parts):
        """The sum that `origin` (see `Shapes.origin`) is, computed from the scalars `parts`."""
        if isinstance(origin, int):
            return number(origin)
        if not parts:
            result = self._unknown(origin)
            if isinstance(origin, tuple):
                self._axes.update(unknown for unknown, _ in result.terms)
            return result
        sums = [self._sums[part] if part in self._sums else self._unknown(part) for part in parts]
        scalar_op, dtype = _scalar_op(origin.owner), origin.dtype
        rule = _RULES.get(type(scalar_op)) if dtype == "int64" else None  # narrower integers may wrap around
        result = rule(sums) if rule else None
        return self._unknown((scalar_op, dtype) + tuple(sums)) if result is None else result

    def _unknown(self, what):
        return Sum(frozenset([(self._unknowns.setdefault(what, len(self._unknowns)), 1)]), 0)


def _scalar_op(node):
    return node.op.scalar_op if isinstance(node.op, Elemwise) else node.op


def _is_arithmetic(origin):
    """Whether this is the result of an operation on integer scalars."""
    node = getattr(origin, "owner", None)
    return (node is not None and isinstance(_scalar_op(node), ScalarOp)
            and all(getattr(x, "ndim", 0) == 0 and x.dtype in discrete_dtypes for x in node.inputs + node.outputs))
