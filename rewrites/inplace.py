"""Ops that may overwrite an operand do so where Theano allows it: beside Theano's own in-place elementwise ops."""
from theano.compile import optdb
from theano.gof import TopoOptimizer, local_optimizer
from theano.gof.opt import copy_stack_trace

from layoutopt.kernels.activation import Sigmoid, Tanh
from layoutopt.kernels.batch_norm import BatchNormTrainGrad
from layoutopt.kernels.pool import MaxPoolGrad

POSITION = 75  # the destroy handler comes at 49.5

OPS = (BatchNormTrainGrad, MaxPoolGrad, Sigmoid, Tanh)


@local_optimizer(OPS, inplace=True)
def local_inplace(node):
    """Overwrite the operand that the op may; the destroy handler takes back what is not safe."""
    if type(node.op) not in OPS or node.op.inplace:
        return False
    new = node.op.in_place()(*node.inputs, return_list=True)
    copy_stack_trace(node.outputs[0], new)
    return new


def register():
    """Put the stage into Theano's database; a second call does nothing."""
    if "layoutopt_inplace" not in optdb.__position__:
        optdb.register("layoutopt_inplace", TopoOptimizer(local_inplace, failure_callback=TopoOptimizer.warn_inplace), POSITION,
                       "fast_run", "inplace")
