"""Sizes of the values of a graph after Theano has taken shape inference away: noted while it is there, followed from then on.

Theano replaces a variable by one of the same value, which has the same sizes. What a replacement computes on its way has none
noted; its ops are asked for them, in numbers.
"""
import numpy as np
from theano.compile import SharedVariable
from theano.compile.ops import Shape, Shape_i
from theano.gof import Constant
from theano.gof.toolbox import Feature
from theano.sandbox.rng_mrg import mrg_uniform_base
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.subtensor import Subtensor

from .shapes import Assumed, Shapes


class KnownSizes(Feature):
    """The sizes of a graph's values, followed through replacements.

    Parameters
    ----------
    estimates : list of dict of variable to tuple of int
        Of each value with axes: one dict where the sizes of all images are known, else one for each batch that is assumed.
    """

    def __init__(self, estimates):
        self.estimates = estimates

    def on_change_input(self, fgraph, node, i, old, new, reason=None):
        for sizes in self.estimates:
            if old in sizes:
                sizes.setdefault(new, sizes[old])

    def __getstate__(self):
        return dict(estimates=[])  # a pickled function is compiled already, or compiled again, of other nodes


def note_sizes(fgraph, shapes):
    """Attach the `KnownSizes` of a graph that still has shape inference. Where a batch is not known it may be anything: it is
    assumed to be as large as `shapes` assumes it, and one image.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
    shapes : rewrites.shapes.Shapes
    """
    counted = [shapes]
    if any(None in shapes.present(x) for x in fgraph.inputs if getattr(x, "ndim", 0) > 1):
        counted.append(Shapes(fgraph, assumed=Assumed(batch=1)))
    values = [x for x in fgraph.variables if _sought(x) and not _of_unknown_size(x, shapes)]
    fgraph.attach_feature(KnownSizes([{x: each.estimate(x) for x in values} for each in counted]))


def take_sizes(fgraph):
    """What `note_sizes` noted, and was followed since: a list of dicts, empty where nothing was. They are not followed further."""
    found = [feature for feature in fgraph._features if isinstance(feature, KnownSizes)]
    for feature in found:
        fgraph.remove_feature(feature)
    return found[-1].estimates if found else []


def complete(sizes, nodes):
    """Find the sizes of what is new in a graph, where that can be done.

    Parameters
    ----------
    sizes : dict of variable to tuple of int
        Gets the new ones.
    nodes : list of theano.Apply
        In topological order.
    """
    for node in nodes:
        if any(_sought(x) and x not in sizes for x in node.outputs):
            _infer(node, sizes)


def is_known(x, sizes):
    """Whether it is known how large a value is, or it is small: a scalar, or integers in a row, which are sizes themselves."""
    return x in sizes or not _sought(x) or (x.ndim == 1 and x.dtype.startswith(("int", "uint")))


def bytes_of(variable, sizes):
    """Bytes of a value, 0 where its sizes are not known or it has no axes."""
    shape = sizes.get(variable)
    if not shape:
        return 0
    count = np.dtype(variable.dtype).itemsize
    for size in shape:
        count *= size
    return count


def _sought(x):
    return getattr(x, "ndim", 0) > 0


def _of_unknown_size(x, shapes):
    """Whether a size of a value can only be read off a computed value, the op of which has no shape inference."""
    return any(_only_read(x, axis, shapes) for axis in range(x.ndim) if not x.broadcastable[axis])


def _only_read(x, axis, shapes):
    seen = set()
    while x.owner is not None and (x, axis) not in seen:
        seen.add((x, axis))
        node = getattr(shapes.symbolic(x, axis), "owner", None)
        if node is None or not isinstance(node.op, Shape_i):
            return False
        x, axis = node.inputs[0], node.op.i
    return x.owner is not None


def _infer(node, sizes):
    """Note what a node's op says of its outputs' sizes, or what reads them says."""
    given = [_of_operand(x, sizes) for x in node.inputs]
    for x, found in zip(node.outputs, _from_op(node, given) or [None] * len(node.outputs)):
        found = _whole(found) or (_from_reader(x, sizes) if _sought(x) else None)
        if _sought(x) and found is not None and len(found) == x.ndim:
            sizes.setdefault(x, found)


def _of_operand(x, sizes):
    """Sizes of an operand, None where they are not known; of what has no axes, none."""
    if not _sought(x):
        return ()
    if x not in sizes and isinstance(x, Constant):
        sizes[x] = np.shape(x.data)
    if x not in sizes and isinstance(x, SharedVariable):
        sizes[x] = tuple(np.shape(x.get_value(borrow=True, return_internal_type=True)))
    return sizes.get(x)


def _from_op(node, given):
    op = node.op
    if isinstance(op, DimShuffle) and given[0] is not None:  # the two that are most of what there is, for speed
        return [[1 if axis == "x" else given[0][axis] for axis in op.new_order]]
    if isinstance(op, Elemwise) and None not in given:
        return [[max(axis) for axis in zip(*given)]] * len(node.outputs)
    if isinstance(op, mrg_uniform_base) and isinstance(node.inputs[1], Constant):
        return [given[0], node.inputs[1].data]
    if isinstance(op, Shape):
        return [(node.inputs[0].ndim,)]
    if None in given or not hasattr(op, "infer_shape"):
        return None
    try:
        return op.infer_shape(node, given)
    except Exception:  # any op's, which may not be meant for numbers
        return None


def _whole(found):
    """Sizes that an op has told, if they are numbers, else None."""
    if found is None:
        return None
    numbers = [size.data if isinstance(size, Constant) else size for size in found]
    if not all(isinstance(n, (int, np.integer)) or (isinstance(n, np.ndarray) and not n.ndim) for n in numbers):
        return None
    return tuple(int(n) for n in numbers)


def _from_reader(x, sizes):
    """What a flip of a value, as behind a lowered convolution, says of its sizes: they are at least those of the flip."""
    for client, _ in x.clients:
        if client != "output" and isinstance(client.op, Subtensor) and client.outputs[0].ndim == x.ndim:
            if client.outputs[0] in sizes:
                return sizes[client.outputs[0]]
    return None
