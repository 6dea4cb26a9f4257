"""Ops that may overwrite an operand do so where Theano allows it: beside Theano's own in-place elementwise ops."""
from theano.compile import optdb
from theano.gof import TopoOptimizer, local_optimizer
from theano.gof.opt import copy_stack_trace

from layoutopt.kernels.activation import Sigmoid, Tanh
from layoutopt.kernels.pool import MaxPoolGrad

POSITION = 75  # the destroy handler comes at 49.5


@local_optimizer([MaxPoolGrad, Sigmoid, Tanh], inplace=True)
def local_inplace(node):
    """Overwrite the first operand; the destroy handler takes back what is not safe."""
    if type(node.op) not in (MaxPoolGrad, Sigmoid, Tanh) or node.op.inplace:
        return False
    new = node.op.in_place()(*node.inputs)
    copy_stack_trace(node.outputs[0], new)
    return [new]


def register():
    """Put the stage into Theano's database; a second call does nothing."""
    if "layoutopt_inplace" not in optdb.__position__:
        optdb.register("layoutopt_inplace", TopoOptimizer(local_inplace, failure_callback=TopoOptimizer.warn_inplace), POSITION,
                       "fast_run", "inplace")
