"""After Theano has lowered what was abstract: sums over channels by vectors, and squares as squares.

The batch normalisations that `rewrites.batch_norm` leaves to Theano become a mean and a variance not before position 48.6, which
nothing simplifies any more. Sums over all axes but the first, like the gradients of biases, take the latency of an addition an
element, and the squares of a variance a call of powf each, since the exponent is a broadcast constant.
"""
from theano import gof, scalar
from theano.compile import optdb
from theano.gof.opt import copy_stack_trace
from theano.tensor import NotScalarConstantError, Sum, get_scalar_constant_value, sqr
from theano.tensor.elemwise import Elemwise

from layoutopt.kernels.channel_sum import channel_sum

from .record import Recorded
from .sites import C01B_OPS

# Behind specialize_device (48.6), before elementwise ops are fused (49), which takes squares in.
POSITION = 48.9


class VectoriseLowered(gof.Optimizer):
    """Replaces such sums and squares in graphs with c01b ops that layoutopt was asked to rewrite; leaves others alone."""

    def apply(self, fgraph):
        if not was_rewritten(fgraph):
            return
        for node in fgraph.toposort():
            new = _square(node) or _channel_sum(node)  # of its operands as they are by now
            if new is not None:
                copy_stack_trace(node.outputs[0], new)
                new.name = node.outputs[0].name
                fgraph.replace_validate(node.outputs[0], new, reason="layoutopt: sums and squares by vectors")


def was_rewritten(fgraph):
    """Whether layoutopt was asked to rewrite a graph and there are c01b ops in it, on the host."""
    asked = any(isinstance(feature, Recorded) for feature in fgraph._features)
    return asked and any(type(node.op) in C01B_OPS for node in fgraph.apply_nodes)


def _channel_sum(node):
    """What a float32 sum over all axes but the first is by our op; None for other nodes."""
    x, op = node.inputs[0] if node.inputs else None, node.op
    if type(op) is not Sum or x.ndim < 2 or x.dtype != "float32" or op.axis is None:
        return None
    if tuple(sorted(op.axis)) != tuple(range(1, x.ndim)) or op.acc_dtype != "float64" or node.outputs[0].dtype != "float32":
        return None
    return channel_sum(x)


def _square(node):
    """What x ** 2 is, of float32 with a constant of the same or fewer elements; None for other nodes."""
    if type(node.op) is not Elemwise or node.op.inplace_pattern or not isinstance(node.op.scalar_op, scalar.Pow):
        return None
    x, exponent = node.inputs
    try:
        value = get_scalar_constant_value(exponent, only_process_constants=False)
    except NotScalarConstantError:
        return None
    if value != 2 or x.type != node.outputs[0].type or x.dtype != "float32":
        return None
    return sqr(x)


def register():
    """Put the stage into Theano's database; a second call does nothing."""
    if "layoutopt_lowered" not in optdb.__position__:
        optdb.register("layoutopt_lowered", VectoriseLowered(), POSITION, "fast_run")
