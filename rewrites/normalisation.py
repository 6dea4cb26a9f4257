"""Local response normalisation, which Theano has no op for, becomes `CrossMapNorm`, and its gradient `CrossMapNormUndo`.

People write it with squares between zeros, and slices of these:

    d = k + alpha * (sum over q of z[:, q:q + channels])         z = set(zeros, [:, h:h + channels], x ** 2)
    y = x * d ** -beta

as in pylearn2's and Lasagne's layers and what was made after them, and Theano's gradient of it is a chain of increments:

    gx = A + b * x * W      A = gy * d ** -beta     W = the sum over q of t, moved by h - q
                            t = r * A * x / d       b * r = -2 * alpha * beta

What is looked for is d, whatever way it is written (`rewrites.neighbours`). Around it, values are compared as products
(`rewrites.products`), as Theano shares and cancels factors across all of this: gy need not be there as a variable, and the
gradient may come multiplied by what x was computed with. Each replacement is an identity that has been proven, so a program that
only resembles the normalisation gets what it wrote.
"""
from typing import NamedTuple

from theano.scalar import Sqr
from theano.tensor import Join, add, mul, neg, sqr
from theano.tensor.subtensor import IncSubtensor

from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum

from .margins import CROPS, is_zero
from .neighbours import Neighbours, addends, is_adding, is_linear
from .products import (ONE, Product, Products, built, close, factor, float32, is_multiplying, permutation, same_number,
                       scalar_class)
from .sums import Sums

_LEAST = 1e-30  # what is added to squares, or scales them, is a number that float32 has, and above 0
_MOVES = (IncSubtensor, Join) + tuple(CROPS)  # by which values get among zeros, and out of them
_FORWARD = "a normalisation across %d channels, written as slices of squares between zeros"
_BACKWARD = "the gradient of a normalisation across %d channels, written as increments of zeros"


def name_normalisations(edits, shapes, constraints="layoutopt"):
    """Replace normalisations across channels, and their gradients.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        As other stages have it; what a node is does not depend on it.
    """
    fgraph = edits.fgraph
    padded = {node for node in fgraph.apply_nodes if _may_hold_squares(node)}
    for node in fgraph.toposort() if padded else ():
        for found in _denominators(node, shapes) if node in padded and node in fgraph.apply_nodes else ():
            _Naming(edits, shapes, found).run()


def _may_hold_squares(node):
    """Whether a node puts float32 images between zeros."""
    if type(node.op) not in (IncSubtensor, Join):
        return False
    out = node.outputs[0]
    return out.ndim == 4 and out.dtype == "float32" and any(is_zero(x) for x in node.inputs if getattr(x, "ndim", 0) == 4)


def _clients(variable, wanted):
    """The results of the nodes that read a value, of those that `wanted` accepts."""
    nodes = dict.fromkeys(client for client, _ in variable.clients if client != "output")
    return [out for node in nodes if wanted(node) for out in node.outputs]


def _above(variables, wanted):
    """Everything computed from values by nodes that `wanted` accepts, nearest first."""
    reached = dict.fromkeys(variables)
    frontier = list(variables)
    while frontier:
        new = [out for out in _clients(frontier.pop(0), wanted) if out not in reached]
        reached.update(dict.fromkeys(new))
        frontier += new
    return list(reached)[len(variables):]


# ---------------------------------------------------------------------------------------------------------------------
# What is divided by.


class Denominators(NamedTuple):
    """A value that is ``offset + scale * (sum of x ** 2 over a window of channels)``.

    variable : the value.
    x : variable, what is normalised.
    product : x as a product.
    axis : of the channels.
    size : channels of a window.
    """

    variable: object
    x: object
    product: Product
    axis: int
    size: int
    scale: float
    offset: float

    def op(self, op_class, exponent):
        return op_class(self.size, self.scale, exponent, False, self.offset, self.axis)


def _denominators(node, shapes):
    """All `Denominators` that are made of the squares that a node puts between zeros."""
    neighbours = Neighbours(Sums(shapes), Products())
    padded, found, reached = node.outputs[0], [], set()
    parts = neighbours.parts(padded)
    if parts is None or len(parts[1]) != 1 or _root(neighbours.products.of(parts[1][0].variable)) is None:
        return []
    frontier = [padded]
    while frontier:
        for out in _clients(frontier.pop(), is_linear):
            terms = neighbours.of(out)
            if out in reached or not (permutation(out.owner) and neighbours.parts(out) or _are_squares(terms)):
                continue
            reached.add(out)
            frontier.append(out)
            found += filter(None, [_read(out, terms, parts[1][0].variable, neighbours.products)])
    return found


def _root(product):
    """The product without a number whose square a product is, times a number; None if it is none."""
    if not product.powers or any(exponent % 2 for _, exponent in product.powers):
        return None
    return ONE.times(Product(1.0, product.powers), 0.5)


def _are_squares(terms):
    """Whether terms are one square, moved, and perhaps a number."""
    keys = {product.key for _, product in terms if product.powers}
    return len(keys) == 1 and all(_root(product) for _, product in terms if product.powers)


def _read(variable, terms, square, products):
    """The `Denominators` that a value of these terms is, `square` being a variable that has its squares; or None."""
    offset = sum(product.number for _, product in terms if not product.powers)
    squares = [(move, product) for move, product in terms if product.powers]
    size, scale = len(squares), squares[0][1].number
    axes = {axis for (axis, _), _ in squares if axis is not None}
    if len(axes) != 1 or any(product.number != scale for _, product in squares):
        return None
    if not all(_LEAST <= value <= 1 / _LEAST for value in (offset, scale)):
        return None
    if sorted(place for (_, place), _ in squares) != [i - size // 2 for i in range(size)]:
        return None
    root = _root(squares[0][1])
    written = square.owner.inputs[0] if square.owner is not None and scalar_class(square.owner) is Sqr else None
    product = root if written is None else products.of(written)
    x = written if product.is_like(root) and written is not None else built(root, variable)
    product = product if x is written else root
    if (x.dtype, x.ndim, variable.dtype) != ("float32", 4, "float32"):
        return None
    return Denominators(variable, x, product, axes.pop(), size, scale / product.number ** 2, offset)


# ---------------------------------------------------------------------------------------------------------------------
# What divides by it.


class _Naming:
    """The replacement of all that uses certain `Denominators`."""

    def __init__(self, edits, shapes, found):
        self.edits = edits
        self.shapes = shapes
        self.found = found
        self.d_once = Products().of(found.variable)
        self.d = self.d_once.powers[0][0]
        self.exponents = []  # of the normalisations that were found so far
        self._acts = {}  # exponent -> variable
        self._gradients = {}  # (exponent, gy) -> variable

    def run(self):
        while self._name_gradient():
            pass
        self._name_forward()
        d = self.found.variable
        if self.exponents and d.clients:
            self._replace(d, self._denominators(), _FORWARD)

    def _denominators(self):
        """d, for who else reads it."""
        found = self.found
        sums = CrossMapSum(found.size, axis=found.axis)(sqr(found.x))
        return add(float32(found.offset, 4), mul(float32(found.scale, 4), sums))

    def _order(self, total, products):
        """The order that brings the axes of a sum, one of whose addends d divides, to where they are in d."""
        for _, x in addends(total):
            for (variable, order), _ in products.of(x).powers:
                if variable is self.d[0]:
                    return tuple(order.index(axis) for axis in self.d[1])
        return tuple(range(4))

    def _built(self, product, order):
        """A product as a variable whose axes `order` would bring to where they are in d."""
        new = built(product, self.found.x)
        return new if order == (0, 1, 2, 3) else new.dimshuffle(*(order.index(axis) for axis in range(4)))

    def _products(self):
        return Products(positive=self.d[:1])

    def _normalised(self, exponent):
        """x * d ** -exponent."""
        if exponent not in self._acts:
            self._acts[exponent] = self.found.op(CrossMapNorm, exponent)(self.found.x)[0]
        return self._acts[exponent]

    def _replace(self, old, new, note):
        self.edits.replace(old, new, note % self.found.size)
        for results, its_note in ((self._acts, _FORWARD), (self._gradients, _BACKWARD)):
            self.edits.notes.update((result.owner, its_note % self.found.size) for result in results.values())

    # ---- the gradient

    def _name_gradient(self):
        """Replace a sum that has the gradient in it; whether there was one."""
        products = self._products()
        neighbours = Neighbours(Sums(self.shapes), products)
        above = _above([self.found.variable], lambda node: products.multiplies(node) or type(node.op) in _MOVES)
        for window in [variable for variable in above if type(variable.owner.op) in CROPS]:
            for total in reversed(_above([window] + _above([window], is_multiplying), is_adding)):
                new = self._gradient_in(total, window, neighbours)
                if new is not None:
                    self._replace(total, new, _BACKWARD)
                    return True
        return False

    def _gradient_in(self, total, window, neighbours):
        """A sum with the gradient for A + b * x * W, W being the variable `window`; None where that is not in it."""
        order = self._order(total, neighbours.products)
        if total.dtype != "float32":
            return None
        terms = [(neighbours.products.of(x, order), sign, x) for sign, x in addends(total)]
        images = Product(1.0, self.found.product.powers)
        for holder in [product for product, _, _ in terms]:
            factors = [f for f, exponent in holder.powers if f[0] is window and exponent == 1]
            moved, whole = self._moved(window, factors[0][1], neighbours) if factors else (None, True)
            common = holder.without(factors[0]).times(images, -1) if factors and holder.holds(images, 1) else None
            if moved is None or common is None or common.power(self.d):
                continue
            common = Product(1.0, common.powers)
            wanted = [moved.times(images, -1).times(self.d_once).times(common), holder]
            wanted += [] if whole else [moved.times(images).times(common)]
            groups = [[term for term in terms if term[0].is_like(like)] for like in wanted]
            a, b, *own = (sum(sign * product.number for product, sign, _ in group) for group in groups)
            if own and not same_number(own[0], b * moved.number):
                continue
            gradient = self._gradient(moved, a, b)
            if gradient is not None:
                others = [x if sign > 0 else neg(x) for _, sign, x in _without(terms, sum(groups, []))]
                new = self._built(common.times(Product(1.0, ((factor(gradient), 1),))), order)
                return add(new, *others) if others else new
        return None

    def _moved(self, window, order, neighbours):
        """(t, True) where `window` is W; (t, False) where it is W without what is not moved; else (None, True)."""
        terms, size = neighbours.of(window, order), self.found.size
        keys, numbers = {product.key for _, product in terms}, {product.number for _, product in terms}
        axes = {axis for (axis, _), _ in terms} - {None}
        moves, all_moves = sorted(-place for (_, place), _ in terms), [i - size // 2 for i in range(size)]
        if (len(keys), len(numbers), axes) != (1, 1, {self.found.axis}) or moves not in (all_moves, [m for m in all_moves if m]):
            return None, True
        return terms[0][1], moves == all_moves

    def _gradient(self, moved, a, b):
        """The gradient op's result of which A is `a` times the powers of moved * d / x, and b * x is `b` times those of x; None
        where these numbers and powers are not a gradient's."""
        found, times = self.found, ONE.times(self.found.product, -1)
        power = moved.power(self.d) + 1
        if not a:
            return None
        predicted = -b * moved.number / (2 * found.scale * a * found.product.number ** 2)
        factors = round(-power / predicted) if predicted > 0 else 0
        if not factors or not close(-power, factors * predicted):
            return None
        exponent = -power / factors
        gy = Product(a, moved.without(self.d).times(times).powers)
        if not gy.holds(found.product, factors - 1):
            return None
        if factors != 1:
            gy = gy.times(found.product, 1 - factors).times(self._factor_of_acts(exponent), factors - 1)
        return self._undone(exponent, gy)

    def _factor_of_acts(self, exponent):
        return Product(1.0, ((factor(self._normalised(exponent)), 1),))

    def _undone(self, exponent, gy):
        """The gradient for `gy`, a product; None where that is of another dtype."""
        key, x = (exponent, gy.number, gy.key), self.found.x
        if key not in self._gradients:
            gy = built(gy, x)
            if gy.dtype != "float32":
                return None
            self._gradients[key] = self.found.op(CrossMapNormUndo, exponent)(x, gy)
        self.exponents.append(exponent)
        return self._gradients[key]

    # ---- the normalisation itself

    def _name_forward(self):
        """Replace the values nearest to d that have x * d ** -exponent as a factor."""
        products = self._products()
        self.exponents = self.exponents or self._written_exponents(products)
        frontier = [self.found.variable]
        while frontier and self.exponents:
            for variable in _clients(frontier.pop(0), products.multiplies):
                new = self._forward(products, variable)
                if new is None:
                    frontier.append(variable)
                else:
                    self._replace(variable, new, _FORWARD)

    def _written_exponents(self, products):
        """The least exponent by which a value that is no mere factor is divided, as a list; none where there is no such value."""
        used = [variable for variable in _above([self.found.variable], products.multiplies)
                if any(client == "output" or not products.multiplies(client) for client, _ in variable.clients)]
        uses = [products.of(variable, self._order(variable, products)) for variable in used]
        exponents = [-use.power(self.d) for use in uses if use.holds(self.found.product, 1) and use.power(self.d) < 0]
        return sorted(exponents)[:1]

    def _forward(self, products, variable):
        """A value made of the normalised x; None where it is no product of these."""
        order = self._order(variable, products)
        product = products.of(variable, order)
        for exponent in self.exponents:
            times = round(-product.power(self.d) / exponent)
            if times >= 1 and close(-product.power(self.d), times * exponent) and product.holds(self.found.product, times):
                rest = product.without(self.d).times(self.found.product, -times)
                new = self._built(rest.times(self._factor_of_acts(exponent), times), order)
                return new if new.dtype == variable.dtype else None
        return None


def _without(terms, taken):
    """The terms that are not among those taken."""
    places = {id(term) for term in taken}
    return [term for term in terms if id(term) not in places]
