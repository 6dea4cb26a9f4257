"""Values as products: a number times variables to powers, by which two elementwise expressions are proven to be equal.

Theano writes gz * x / d ** 1.75 in many ways, as it cancels, reorders and shares factors: true_div(mul(gz, x, pow(d, -0.25)),
sqr(pow(d, 0.75))) is one. Multiplied out, every way is the same product.
"""
from typing import NamedTuple, Tuple

import numpy as np
from theano import scalar
from theano.gof import Constant
from theano.tensor import constant, fill, mul, pow as power_of, sqr, true_div
from theano.tensor.elemwise import DimShuffle, Elemwise

# Of numbers and exponents that Theano computed in float32, by up to 16 roundings.
TOLERANCE = 16 * 2.0 ** -24
# What is raised further, or is made of larger or smaller numbers, counts as a variable: no number here is infinite.
LARGEST_EXPONENT, SMALLEST = 6, 1e-45
DEPTH = 100  # of nested products that are multiplied out; a longer chain counts as a variable


def close(a, b):
    """Whether two exponents are equal but for roundings in float32."""
    return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))


def same_number(a, b):
    """Whether two numbers are equal but for roundings in float32."""
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


class Product(NamedTuple):
    """A number times factors to powers other than 0; a factor is a variable with the order in which its axes are taken."""

    number: float
    powers: Tuple[Tuple[tuple, float], ...]

    @property
    def key(self):
        """The same for equal products, but for their numbers."""
        return frozenset(self.powers)

    def times(self, other, power=1):
        """This product times `other` ** `power`."""
        powers = dict(self.powers)
        for factor, exponent in other.powers:
            powers[factor] = powers.get(factor, 0) + power * exponent
        return Product(self.number * other.number ** power, tuple(item for item in powers.items() if not close(item[1], 0)))

    def power(self, factor):
        """The exponent of a factor, 0 where it is none."""
        return dict(self.powers).get(factor, 0)

    def without(self, factor):
        return Product(self.number, tuple(item for item in self.powers if item[0] != factor))

    def is_like(self, other):
        """Whether two products are equal but for their numbers."""
        return not Product(1.0, self.powers).times(Product(1.0, other.powers), -1).powers

    def holds(self, other, times):
        """Whether `other` ** `times` can be divided out without a factor changing over to the other side of the line."""
        powers = [(self.power(factor), times * exponent) for factor, exponent in other.powers]
        return all(mine >= wanted if wanted > 0 else mine <= wanted for mine, wanted in powers if wanted)


ONE = Product(1.0, ())


def factor(variable, order=None):
    """A variable with its axes in this order, as a factor."""
    axes = tuple(range(variable.ndim))
    return variable, axes if order is None or all(variable.broadcastable) else tuple(order)


def composed(inner, outer):
    """The order of axes that `outer` makes of those in the order `inner`."""
    return tuple(inner[axis] for axis in outer)


def permutation(node):
    """The order into which a DimShuffle brings all axes of its operand; None if it does anything else."""
    if not isinstance(node.op, DimShuffle):
        return None
    order = tuple(node.op.new_order)
    return order if sorted(order, key=str) == list(range(node.inputs[0].ndim)) else None


def scalar_class(node):
    """The class of an elementwise node's scalar op, else None."""
    return type(node.op.scalar_op) if isinstance(node.op, Elemwise) and len(node.outputs) == 1 else None


def number_of(variable):
    """The number that a constant has everywhere, as a float; None for any other variable."""
    if not isinstance(variable, Constant) or np.size(variable.data) != 1:
        return None
    return float(np.asarray(variable.data).reshape(()))


# What is a product if its operands are, as their exponents. Powers, of which exp(c * log(x)) is one, have theirs as operands.
_EXPONENTS = {
    scalar.Mul: lambda count: (1,) * count,
    scalar.TrueDiv: lambda count: (1, -1),
    scalar.Inv: lambda count: (-1,),
    scalar.Sqr: lambda count: (2,),
    scalar.Sqrt: lambda count: (0.5,),
    scalar.Pow: lambda count: (None, None),
    scalar.Exp: lambda count: (None,),
    scalar.Log: lambda count: (None,),  # no product, but on the way to one
}
# What is a sum: the signs of its operands.
SIGNS = {scalar.Add: lambda count: (1,) * count, scalar.Sub: lambda count: (1, -1), scalar.Neg: lambda count: (-1,)}


def is_multiplying(node):
    """Whether a node's result is a product of its operands' products."""
    return scalar_class(node) in _EXPONENTS or scalar_class(node) is scalar.Neg or permutation(node) is not None


class Products:
    """Values as products.

    Parameters
    ----------
    positive : variables known to be above 0, of which any power of a power is a power
    """

    def __init__(self, positive=()):
        self._positive = set(positive)
        self._known = {}

    def of(self, variable, order=None, depth=0):
        """`variable`, with its axes in this order, as a product."""
        key = factor(variable, order)
        if key not in self._known:
            product = self._multiplied_out(*key, depth) if depth < DEPTH else None
            self._known[key] = Product(1.0, ((key, 1),)) if product is None else product
        return self._known[key]

    def multiplies(self, node):
        """Whether a node's result is a product of its operands' products, or the sum of products that differ in their numbers."""
        return is_multiplying(node) or (scalar_class(node) in SIGNS and self._is_product(node.outputs[0]))

    def _is_product(self, variable):
        return self.of(variable).powers != ((factor(variable), 1),)

    def _multiplied_out(self, variable, order, depth):
        """A value as the product that its node computes; None if that is none."""
        number, node = number_of(variable), variable.owner
        if number is not None:
            return ONE._replace(number=number)
        if node is not None and scalar_class(node) in SIGNS:
            return self._sum(node, order, depth)
        if node is None or not is_multiplying(node):
            return None
        inner = permutation(node)
        if inner is not None:
            return self.of(node.inputs[0], composed(inner, order), depth + 1)
        operands, exponents = _raised_operands(node)
        product = ONE
        for operand, exponent in zip(operands, exponents):
            part = self.of(operand, order, depth + 1)
            if not self._may_be_raised(part, exponent):
                return None
            product = product.times(part, exponent)
        return product

    def _sum(self, node, order, depth):
        """The sum of products that differ in their numbers alone, else None."""
        first, number = self.of(node.inputs[0], order, depth + 1), 0.0
        for sign, x in zip(SIGNS[scalar_class(node)](len(node.inputs)), node.inputs):
            part = self.of(x, order, depth + 1)
            if part.key != first.key:
                return None
            number += sign * part.number
        return first._replace(number=number) if number and first.powers else None

    def _may_be_raised(self, product, exponent):
        """Whether the power of a product is the product of powers: (a * b) ** 0.5 is not where both are negative."""
        if exponent is None or not abs(exponent) <= LARGEST_EXPONENT or not SMALLEST < abs(product.number) < 1 / SMALLEST:
            return False
        positive = product.number > 0 and all(variable in self._positive for (variable, _), _ in product.powers)
        return positive or exponent == int(exponent)


def _raised_operands(node):
    """Of which values to which powers a node computes the product; the power None where it is none."""
    kind, operands = scalar_class(node), node.inputs
    if kind is scalar.Pow:
        return operands[:1], [number_of(operands[1])]
    if kind is not scalar.Exp:
        return operands, _EXPONENTS[kind](len(operands))
    scaled, number = scaled_by(operands[0])
    logarithm = scaled.owner is not None and scalar_class(scaled.owner) is scalar.Log
    return (scaled.owner.inputs, [number]) if logarithm else (operands, [None])


def scaled_by(variable):
    """(another variable, number) whose product a value is, the number 1 where there is none."""
    node = variable.owner
    kind = None if node is None else scalar_class(node)
    if kind is scalar.Neg:
        return node.inputs[0], -1.0
    numbers = [number_of(x) for x in node.inputs] if kind in (scalar.Mul, scalar.TrueDiv) else []
    if numbers.count(None) != 1 or (kind is scalar.TrueDiv and not numbers[1]):
        return variable, 1.0
    number = 1 / numbers[1] if kind is scalar.TrueDiv else float(np.prod([1.0 if x is None else x for x in numbers]))
    return node.inputs[numbers.index(None)], number


def built(product, like):
    """A product as a variable that has the axes of the variable `like`, over which it is repeated where it has none."""
    above, below = [], []
    for (variable, order), exponent in product.powers:
        variable = variable if order == tuple(range(variable.ndim)) else variable.dimshuffle(*order)
        (above if exponent > 0 else below).append(_raised(variable, abs(exponent)))
    if product.number != 1 or not above:
        above.insert(0, float32(product.number, like.ndim))
    result = mul(*above) if len(above) > 1 else above[0]
    if below:
        result = true_div(result, mul(*below) if len(below) > 1 else below[0])
    repeated = any(mine and not other for mine, other in zip((True,) * (like.ndim - result.ndim) + result.broadcastable,
                                                             like.broadcastable))
    return fill(like, result) if repeated else result


def _raised(variable, exponent):
    if exponent == 1:
        return variable
    return sqr(variable) if exponent == 2 else power_of(variable, float32(exponent, variable.ndim))


def float32(number, ndim):
    """A number as a constant of so many axes, of its own: those that Theano keeps for all graphs cannot be put into one."""
    return constant(np.full((1,) * ndim, number, "float32")).clone()
