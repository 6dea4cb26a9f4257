"""Values as sums over neighbours along an axis: what slices of values with zeros around them add up to.

Where z has the value v between zeros, `before` of them in front, z[q:q + size of v] is v moved by q - before: at i it has
v[i + q - before], and zero where v has none. Whatever way they are written (scaled one by one or together, in one sum or in
many, with axes exchanged in between), sums of such slices are numbers times products (`rewrites.products`), each moved by an offset.
"""
from typing import NamedTuple

from theano import scalar
from theano.tensor import Join
from theano.tensor.subtensor import IncSubtensor

from .margins import CROPS, PADS, is_zero, written
from .products import DEPTH, SIGNS, composed, permutation, scalar_class, scaled_by

_UNMOVED = (None, 0)
_WHOLE = (0, 0)


class Part(NamedTuple):
    """A value that is found in a larger one, its axes taken in `order`, with margins along one axis."""

    variable: object
    order: tuple
    margin: tuple  # (before, after)


def addends(variable, depth=0):
    """[(sign, variable)] of which a value is the sum, sums of sums among them."""
    signs = SIGNS.get(scalar_class(variable.owner)) if variable.owner is not None and depth < DEPTH else None
    if signs is None:
        return [(1, variable)]
    operands = variable.owner.inputs
    return [(sign * inner, x) for sign, operand in zip(signs(len(operands)), operands)
            for inner, x in addends(operand, depth + 1)]


def is_adding(node):
    """Whether a node adds, subtracts or negates."""
    return scalar_class(node) in SIGNS


def is_linear(node):
    """Whether a node may compute a sum over neighbours from others."""
    return (is_adding(node) or scalar_class(node) in (scalar.Mul, scalar.TrueDiv) or type(node.op) in CROPS
            or permutation(node) is not None)


class Neighbours:
    """Sums over neighbours, of the values of one graph.

    Parameters
    ----------
    sums : rewrites.sums.Sums
    products : rewrites.products.Products
    """

    def __init__(self, sums, products):
        self.sums = sums
        self.products = products
        self._known = {}

    def of(self, variable, order=None, depth=0):
        """`variable`, its axes in this order, as {((axis, offset), product's key): (number, product)}.

        The offset says how far the product is moved along the axis; what is not moved has the axis None.
        """
        order = tuple(range(variable.ndim)) if order is None else order
        if (variable, order) not in self._known:
            terms = self._terms(variable, order, depth) if variable.owner is not None and depth < DEPTH else None
            self._known[variable, order] = [(_UNMOVED, self.products.of(variable, order))] if terms is None else terms
        return self._known[variable, order]

    def _terms(self, variable, order, depth):
        """[((axis, offset), product)] that a value is the sum of; None where it is a product itself, or nothing known."""
        node = variable.owner
        signs, inner = SIGNS.get(scalar_class(node)), permutation(node)
        if signs is not None:
            return _collected((move, product._replace(number=sign * product.number))
                              for sign, x in zip(signs(len(node.inputs)), node.inputs)
                              for move, product in self.of(x, order, depth + 1))
        if inner is not None:
            return self.of(node.inputs[0], composed(inner, order), depth + 1)
        if type(node.op) in CROPS:
            return self._slice(node, variable, order)
        scaled, number = scaled_by(variable)
        if scaled is variable:
            return None
        return [(move, product._replace(number=number * product.number)) for move, product in self.of(scaled, order, depth + 1)]

    def _slice(self, node, variable, order):
        """The terms of a slice of a value with zeros around its parts."""
        cut = CROPS[type(node.op)](node, variable, self.sums)
        axis = None if cut is None else _only_axis(cut[1])
        parts = None if axis is None else self.parts(cut[0])
        if parts is None or parts[0] != axis:
            return None
        before, after = cut[1][axis]
        if any(sum(part.margin) != before + after for part in parts[1]):
            return None
        moved = order.index(axis)
        return _collected((_UNMOVED if before == part.margin[0] else (moved, before - part.margin[0]),
                           self.products.of(part.variable, composed(part.order, order))) for part in parts[1])

    def parts(self, variable):
        """(axis, [Part]) of a value that is zero but for these parts, which add up; None if it is not proven to be."""
        parts, axis = [], None
        while not is_zero(variable):
            node = variable.owner
            if node is None:
                return None
            inner = permutation(node)
            if inner is not None or type(node.op) is Join:
                below = self._below(node, variable, inner)
                return below if below is None or not parts else None
            found = self._added(node)
            if found is None or axis not in (None, found[0]):
                return None
            axis, part, variable = found
            parts.append(part)
        return (axis, parts) if parts else None

    def _added(self, node):
        """(axis, the part that a node adds to a value, that value), None where it does anything else."""
        if type(node.op) is not IncSubtensor or (node.op.set_instead_of_inc and not is_zero(node.inputs[0])):
            return None
        found = written(node, self.sums)
        axis = None if found is None else _only_axis(found[1])
        return None if axis is None else (axis, Part(found[0], tuple(range(4)), found[1][axis]), node.inputs[0])

    def _below(self, node, variable, inner):
        """`parts` of a value whose axes are exchanged, or that is joined from zeros and one part."""
        if inner is None:
            found = PADS[Join](node, variable, self.sums)
            axis = None if found is None else _only_axis(found[1])
            return None if axis is None else (axis, [Part(found[0], tuple(range(4)), found[1][axis])])
        below = self.parts(node.inputs[0])
        if below is None:
            return None
        axis, parts = below
        return inner.index(axis), [part._replace(order=composed(part.order, inner)) for part in parts]


def _only_axis(margins):
    """The axis along which there are margins; None unless it is one."""
    axes = [axis for axis, margin in enumerate(margins) if tuple(margin) != _WHOLE]
    return axes[0] if len(axes) == 1 else None


def _collected(terms):
    """Terms with those that are equal but for their numbers added up."""
    sums = {}
    for move, product in terms:
        before = sums.get((move, product.key))
        number = product.number + (before[1].number if before else 0.0)
        sums[move, product.key] = move, product._replace(number=number)
    return list(sums.values())
