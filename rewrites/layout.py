"""The two layouts, for tensors of any rank.

A value in **BC01** is as the program wrote it: axis 0 (of an image tensor, the batch) comes first. The same value in **C01B**
has that axis last, where it is contiguous, and all others moved up by one: (b, c, 0, 1) becomes (c, 0, 1, b), filters
(k, c, 0, 1) become (c, 0, 1, k), and a matrix (b, features) becomes (features, b), its transpose. The name fits rank 4; the
rule serves every rank from 2 up, which is what lets a region of the layout run through reshapes into dense layers. Below
rank 2 the two layouts are one.
"""
from theano.compile import SharedVariable
from theano.tensor import TensorConstant

from layoutopt.kernels.relayout import stored_to_c01b, to_bc01, to_c01b

BC01, C01B = "bc01", "c01b"
EITHER = "either"  # of an operand: whatever layout the value happens to have


def rotate(items):
    """Per-axis `items` of a BC01 value, in the order of its C01B axes."""
    items = tuple(items)
    return items[1:] + items[:1]


def c01b_axis(axis, ndim):
    """Where BC01 axis `axis` of a value of rank `ndim` lies in C01B."""
    return (axis - 1) % ndim


def c01b_order(ndim):
    """The dimshuffle pattern from BC01 to C01B."""
    return rotate(range(ndim))


def bc01_order(ndim):
    """The dimshuffle pattern from C01B to BC01."""
    return (ndim - 1,) + tuple(range(ndim - 1))


def is_view(broadcastable):
    """Whether a value with these BC01 broadcast flags has the same bytes in both layouts (one of the two parts is 1)."""
    return len(broadcastable) < 2 or broadcastable[0] or all(broadcastable[1:])


def convert(variable, layout):
    """`variable` in the other layout, `layout`: a constant turned at compile time, a view where the bytes are the same,
    a conversion op otherwise. Of a shared variable that is a view, too, from when a function has stored it so
    (`rewrites.storage`).

    Parameters
    ----------
    variable : tensor variable
        In C01B if `layout` is BC01 and the other way round.
    layout : {BC01, C01B}
    """
    ndim = variable.ndim
    if ndim < 2:
        return variable
    order = c01b_order(ndim) if layout == C01B else bc01_order(ndim)
    flags = variable.broadcastable
    if isinstance(variable, TensorConstant):
        turned = variable.type.clone(broadcastable=[flags[axis] for axis in order])
        return TensorConstant(turned, variable.data.transpose(order).copy())
    if is_view(flags if layout == C01B else tuple(flags[axis] for axis in order)):
        return variable.dimshuffle(*order)
    if layout == BC01:
        return to_bc01(variable)
    return stored_to_c01b(variable) if isinstance(variable, SharedVariable) else to_c01b(variable)
