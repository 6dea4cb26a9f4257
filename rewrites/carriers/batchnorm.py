"""Theano's batch normalization while it is one op: the axes that it normalizes are renumbered.

Scale, bias, mean and variance have the rank of the images, so they are operands like any other; those of one number per
channel, (1, c, 1, 1), have the same bytes in both layouts.
"""
from theano.tensor.nnet.bn import AbstractBatchNormInference, AbstractBatchNormTrain, AbstractBatchNormTrainGrad

from ..layout import c01b_axis
from ..versions import C01B, Choice, Version, as_written, rotated_rank
from .registry import carries


@carries(AbstractBatchNormTrain, AbstractBatchNormInference, AbstractBatchNormTrainGrad)
def batch_normalization(node, shapes):
    ndim = node.inputs[0].ndim
    if ndim < 2:
        return None
    axes = tuple(sorted(c01b_axis(axis, ndim) for axis in node.op.axes))

    def build(node, inputs, layouts):
        return type(node.op)(axes)(*inputs, return_list=True)

    needs = tuple(rotated_rank(x) for x in node.inputs)  # epsilon and the like are scalars
    return Choice(as_written(node), Version(needs, (C01B,) * len(node.outputs), build=build))
