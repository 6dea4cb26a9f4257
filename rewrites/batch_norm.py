"""Theano's batch normalisation of training and its gradient, where the channel is the first axis, become ops of ours.

At 48.6 Theano writes them out as a dozen elementwise passes and two sums or more, whose inner loops are as long as the batch. In
c01b each channel is one run of memory, which `kernels.batch_norm` reads once and writes once. The rest is one number for each
channel and stays Theano's: the formulas are those of its `local_abstract_batch_norm_train`.
"""
from theano import config, gof
from theano.compile import optdb
from theano.gof.graph import variables
from theano.gof.opt import copy_stack_trace
from theano.tensor import TensorType, cast, inv, patternbroadcast, prod, sqrt
from theano.tensor.nnet.bn import AbstractBatchNormTrain, AbstractBatchNormTrainGrad

from layoutopt.kernels.batch_norm import batch_norm_train, batch_norm_train_grad

from .lowered import was_rewritten

# Behind Theano's GPU rules (48.5), which take what moves to a GPU; before specialize_device (48.6), which writes out the rest.
POSITION = 48.55


class NameBatchNorm(gof.Optimizer):
    """Replaces such nodes in graphs with c01b ops that layoutopt was asked to rewrite; leaves others alone.

    Nodes of which only the statistics are read, or only the gradients of scale and bias, stay: what is not read is not computed
    there.
    """

    def apply(self, fgraph):
        if not was_rewritten(fgraph):
            return
        for node in fgraph.toposort():
            rule = _RULES.get(type(node.op))
            if rule is None or not _by_channel(node) or not node.outputs[0].clients:
                continue
            results = rule(node)
            if any(new.dtype != old.dtype for new, old in zip(results, node.outputs)):
                continue
            results = [patternbroadcast(new, old.broadcastable) for new, old in zip(results, node.outputs)]
            for x in variables(node.inputs, results):
                if x not in node.inputs:
                    copy_stack_trace(node.outputs[0], x)
            for new, old in zip(results, node.outputs):
                new.name = old.name
            fgraph.replace_all_validate(list(zip(node.outputs, results)), reason="layoutopt: batch normalisation of channels")


def _by_channel(node):
    """Whether a node normalises float32 over all axes but the first, with one number for each channel everywhere else."""
    if not all(isinstance(operand.type, TensorType) for operand in node.inputs):
        return False
    x, train = node.inputs[0], isinstance(node.op, AbstractBatchNormTrain)
    if x.ndim < 2 or tuple(sorted(node.op.axes)) != tuple(range(1, x.ndim)):
        return False
    large, numbers = (node.inputs[:1], node.inputs[1:3]) if train else (node.inputs[:2], node.inputs[2:5])
    if any(operand.dtype != "float32" for operand in large + numbers):
        return False
    if train and (node.inputs[3].ndim or node.inputs[3].dtype not in ("float32", "float64")):
        return False  # an epsilon that is no such scalar
    return all(all(operand.broadcastable[1:]) for operand in numbers)


def _train(node):
    """What the outputs of an AbstractBatchNormTrain are by our op and by Theano's own formulas."""
    x, scale, bias, epsilon, factor = node.inputs[:5]
    epsilon = cast(epsilon, "float32")
    y, mean, variance = batch_norm_train(x, scale, bias, epsilon)
    results = [y, mean, inv(sqrt(variance + epsilon))]
    if len(node.inputs) > 5:
        results.append(node.inputs[5] * (1.0 - factor) + mean * factor)
    if len(node.inputs) > 6:
        m = cast(prod(x.shape) / prod(scale.shape), config.floatX)
        results.append(node.inputs[6] * (1.0 - factor) + (m / (m - 1)) * variance * factor)
    return results


def _gradient(node):
    """What the outputs of an AbstractBatchNormTrainGrad are by our op."""
    return batch_norm_train_grad(*node.inputs[:5])


_RULES = {AbstractBatchNormTrain: _train, AbstractBatchNormTrainGrad: _gradient}


def register():
    """Put the stage into Theano's database; a second call does nothing."""
    if "layoutopt_batch_norm" not in optdb.__position__:
        optdb.register("layoutopt_batch_norm", NameBatchNorm(), POSITION, "fast_run")
