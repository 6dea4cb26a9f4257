"""Whole graphs on the GPU: planned as on the CPU, lifted with nothing fetched between, the same numbers."""
import gpu_device  # noqa: F401  isort: skip (skips the module where there is no GPU)

import collections

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.gpuarray.basic_ops import GpuContiguous, GpuFromHost, HostFromGpu, as_gpuarray_variable
from theano.gpuarray.basic_ops import gpu_contiguous as theanos_contiguous
from theano.gpuarray.blas import BaseGpuCorrMM
from theano.gpuarray.elemwise import GpuElemwise
from theano.tensor.nnet import conv2d, relu
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.kernels import FilterActs, ImageActs, MaxPool, ToC01B, WeightActs, gpu_contiguous
from layoutopt.kernels.activation import _Activation
from layoutopt.kernels.base import C01bOp
from layoutopt.kernels.batch_norm import BatchNormTrain, BatchNormTrainGrad
from layoutopt.kernels.channel_sum import ChannelSum
from layoutopt.kernels.epilogue import FilterActsBias, MaxPoolBias
from layoutopt.kernels.gpu import (GpuAvgPool, GpuAvgPoolGrad, GpuFilterActs, GpuImageActs, GpuMaxPool, GpuMaxPoolGrad,
                                   GpuToBC01, GpuToC01B, GpuWeightActs)
from layoutopt.kernels.gpu.reshape import GpuReshapeC01B
from layoutopt.kernels.reshape import ReshapeC01B
from layoutopt.kernels.take import TakeToC01B
from layoutopt.rewrites.gpu_lift import LIFTED
from layoutopt.rewrites.told import ToldSizes
from tolerance import whole_numbers

FAST = theano.compile.get_mode("FAST_RUN")
FLAGGED = FAST.including("layoutopt")
ON_HOST = FAST.excluding("gpuarray_opt")
MOVERS = {"GraphToGPU": FLAGGED, "the local optimizer": FLAGGED.excluding("gpuarray_graph_optimization")}


def counts(function):
    return collections.Counter(type(node.op) for node in function.maker.fgraph.toposort())


def fetched(function):
    """Transfers from the GPU to the host but for those of outputs."""
    return [node for node in function.maker.fgraph.toposort() if isinstance(node.op, HostFromGpu)
            and any(client != "output" for client, _ in node.outputs[0].clients)]


def network(rng, average=False):
    """(inputs, loss, shared weights): convolution, pooling, rectifier, twice, and a squared error; all in whole numbers."""
    x, target = tt.ftensor4("x"), tt.ftensor4("target")
    weights = [theano.shared(whole_numbers(rng, shape, 1), name) for name, shape in (("w1", (4, 3, 3, 3)), ("w2", (6, 4, 3, 3)))]
    hidden = relu(pool_2d(conv2d(x, weights[0], border_mode="half"), (2, 2), ignore_border=True))
    out = pool_2d(conv2d(hidden, weights[1], subsample=(2, 1)), (2, 2), ignore_border=True, mode="sum" if average else "max")
    return [x, target], ((out - target) ** 2).sum(), weights


def training_step(rng, mode, average=False):
    inputs, loss, weights = network(rng, average)
    updates = [(w, w - d / 2 ** 12) for w, d in zip(weights, theano.grad(loss, weights))]
    return theano.function(inputs, loss, updates=updates, mode=mode), weights


@pytest.mark.parametrize("mover", sorted(MOVERS))
def test_told_sizes_are_looked_at_where_the_values_are(mover, rng):
    """Of a ConvOp's place: on the host it checks what it was told, and nothing is fetched to do as much."""
    images, filters = whole_numbers(rng, (2, 3, 5, 5)), whole_numbers(rng, (3, 3, 3, 4))
    x, w = tt.ftensor4(), theano.shared(filters)
    checked = ToldSizes()(tt.as_tensor_variable(w), ToC01B()(x), tt.constant(np.array([-1, 3, -1, 4, 3, 5, 5, -1], "int64")))
    f = theano.function([x], FilterActs()(ToC01B()(x), checked), mode=MOVERS[mover])
    assert counts(f)[ToldSizes] == counts(f)[GpuFilterActs] == 1 and fetched(f) == []
    expected = theano.function([x], FilterActs()(ToC01B()(x), w), mode=ON_HOST)(images)
    np.testing.assert_allclose(np.asarray(f(images)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="told of a size of 5 and got 4"):
        f(images[:, :, :4])


def batch_of(rng):
    return whole_numbers(rng, (8, 3, 12, 12), 1), whole_numbers(rng, (8, 6, 1, 2), 1)


@pytest.mark.parametrize("mover", sorted(MOVERS))
@pytest.mark.parametrize("average", [False, True])
def test_training_step(mover, average):
    """The same loss and weights as on the host, everything in c01b, and only the loss comes back."""
    values, steps = batch_of(np.random.RandomState(1)), []
    for mode in (ON_HOST, MOVERS[mover]):
        step, weights = training_step(np.random.RandomState(0), mode, average)
        losses = [float(step(*values)) for _ in range(2)]
        steps.append((losses, [np.asarray(w.get_value()) for w in weights]))
    (losses, host), (gpu_losses, gpu) = steps
    np.testing.assert_allclose(gpu_losses, losses, rtol=1e-5)
    for one, other in zip(host, gpu):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)

    found = counts(step)
    assert found[GpuFilterActs] == 2 and found[GpuWeightActs] == 2 and found[GpuImageActs] == 1
    pools, gradients = ((1, 1) if average else (2, 2))
    assert (found[GpuMaxPool], found[GpuMaxPoolGrad]) == (pools, gradients)
    assert (found[GpuAvgPool], found[GpuAvgPoolGrad]) == (2 - pools, 2 - gradients)
    assert not any(issubclass(op, (C01bOp, BaseGpuCorrMM)) for op in found)
    record = layoutopt.explain(step).record
    assert record.applied and all(site.layout == "c01b" for site in record.sites)
    assert found[GpuToC01B] + found[GpuToBC01] == len(record.conversions)
    assert fetched(step) == [] and found[GpuFromHost] == 2 and found[GpuContiguous] == 0


def test_elementwise_ops_are_fused_and_work_in_place():
    step, _ = training_step(np.random.RandomState(0), FLAGGED)
    elementwise = [node.op for node in step.maker.fgraph.toposort() if isinstance(node.op, GpuElemwise)]
    assert any(op.inplace_pattern for op in elementwise)
    assert any("Composite" in str(op) for op in elementwise)


def test_the_report_names_what_is_on_the_gpu_and_what_copies_are_left():
    step, _ = training_step(np.random.RandomState(0), FLAGGED)
    text = str(layoutopt.explain(step))
    assert "9 of 9 convolutions and poolings in c01b" in text
    assert "conversion to c01b: w1" in text
    assert "contiguity copies left: 0" in text


def test_planned_with_a_gpus_costs():
    from layoutopt import device
    from layoutopt.rewrites.gpu_cost import GpuMachine

    assert isinstance(device.find_target(theano.config.layoutopt), GpuMachine)


# ---------------------------------------------------------------------------------------------------------------------
# Programs written for the original ops.


def c01b_operands(rng):
    return [whole_numbers(rng, shape) for shape in ((3, 6, 6, 5), (3, 3, 3, 4))]


@pytest.mark.parametrize("contiguous", [gpu_contiguous, theanos_contiguous])
@pytest.mark.parametrize("mover", sorted(MOVERS))
def test_code_for_cuda_convnet(contiguous, mover, rng):
    x, w = tt.ftensor4(), tt.ftensor4()
    out = MaxPool(2)(FilterActs(partial_sum=1)(contiguous(x), contiguous(w)))
    outputs = [out] + theano.grad((contiguous(out) ** 2).sum(), [x, w])
    values = c01b_operands(rng)
    f, host = (theano.function([x, w], outputs, mode=mode) for mode in (MOVERS[mover], ON_HOST.excluding("gpuarray")))
    for value, right in zip(f(*values), host(*values)):
        np.testing.assert_array_equal(value, right)
    found = counts(f)
    assert found[GpuFilterActs] == 1 and found[GpuWeightActs] == 1 and found[GpuContiguous] == 0
    assert fetched(f) == [] and found[GpuFromHost] == 2


def test_partial_sums_are_computed_where_they_are_used(rng):
    x, h = tt.ftensor4(), tt.ftensor4()
    dw, partials = WeightActs(partial_sum=4)(x, h, [3, 3])
    values = whole_numbers(rng, (3, 6, 6, 5)), whole_numbers(rng, (4, 4, 4, 5))
    for outputs, own in (([dw], None), ([dw, partials], 4)):
        f = theano.function([x, h], outputs, mode=FLAGGED)
        op, = (node.op for node in f.maker.fgraph.toposort() if isinstance(node.op, GpuWeightActs))
        assert op.host.partial_sum == own
        for value, right in zip(f(*values), theano.function([x, h], outputs, mode=ON_HOST)(*values)):
            np.testing.assert_array_equal(value, right)


@pytest.mark.parametrize("build, left", [
    (lambda x: theanos_contiguous(GpuMaxPool(MaxPool(2))(x)), 0),
    (lambda x: theanos_contiguous(GpuMaxPool(MaxPool(2))(x) + 1), 0),
    (lambda x: theanos_contiguous(GpuMaxPool(MaxPool(2))(x).dimshuffle(3, 0, 1, 2)), 1),
    (lambda x: theanos_contiguous(GpuMaxPool(MaxPool(2))(x)[:, ::2]), 1),
    (lambda x: theanos_contiguous(GpuMaxPool(MaxPool(2))(x).dimshuffle(0, "x", 1, 2, 3)), 0),
])
def test_copies_of_contiguous_values_go(build, left, rng):
    x = tt.ftensor4()
    f = theano.function([x], build(as_gpuarray_variable(x, None)).transfer("cpu"), mode=FLAGGED)
    assert counts(f)[GpuContiguous] == left
    value = whole_numbers(rng, (2, 8, 8, 3))
    np.testing.assert_array_equal(f(value), theano.function([x], build(as_gpuarray_variable(x, None)).transfer("cpu"),
                                                            mode=theano.Mode("cvm", None))(value))


# ---------------------------------------------------------------------------------------------------------------------
# Flags.


def lifted_weight_gradient():
    x, h = tt.ftensor4(), tt.ftensor4()
    f = theano.function([x, h], WeightActs()(x, h, [3, 3])[0], mode=FLAGGED)
    return next(node.op for node in f.maker.fgraph.toposort() if isinstance(node.op, GpuWeightActs))


@pytest.mark.parametrize("flag, value, attribute, expected", [
    ("precision", "float32", "tf32", False), ("precision", "tf32", "tf32", True), ("partial_sum", "auto", "split", 0),
    ("partial_sum", "None", "split", -1), ("partial_sum", "12", "split", 12), ("workspace", 3, "workspace", 3 * 2 ** 20)])
def test_flags_reach_the_kernels(flag, value, attribute, expected, monkeypatch):
    monkeypatch.setattr(theano.config.layoutopt, flag, value)
    assert getattr(lifted_weight_gradient(), attribute) == expected


def test_conversion_of_a_shared_variable_is_lifted(rng):
    """Nothing but a view of the shared variable reaches the op."""
    w = theano.shared(whole_numbers(rng, (4, 3, 2, 2)))
    f = theano.function([], ToC01B()(w), mode=FLAGGED)
    assert counts(f)[GpuToC01B] == 1
    np.testing.assert_array_equal(f(), np.asarray(w.get_value()).transpose(1, 2, 3, 0))


def test_every_op_of_a_plan_has_a_rule():
    """A host op without one would fetch what it works on. tanh and sigmoid by vectors are for the CPU alone."""

    def concrete(cls):
        for sub in cls.__subclasses__():
            yield from [] if sub.__name__.startswith("_") else [sub]
            yield from concrete(sub)

    ops = set(concrete(C01bOp)) - set(concrete(_Activation))
    ops -= {BatchNormTrain, BatchNormTrainGrad, ChannelSum, FilterActsBias, MaxPoolBias}  # not for graphs that move to a GPU
    assert {FilterActs, TakeToC01B} < ops <= set(LIFTED)


def test_a_minibatch_is_taken_from_images_on_the_gpu(rng):
    images, rows = theano.shared(whole_numbers(rng, (9, 3, 4, 5))), tt.lvector()
    f = theano.function([rows], TakeToC01B()(images, rows), mode=FLAGGED)
    assert counts(f)[GpuToC01B] == 1 and fetched(f) == []
    np.testing.assert_array_equal(f([3, 0, 8]), np.asarray(images.get_value())[[3, 0, 8]].transpose(1, 2, 3, 0))
    with pytest.raises(IndexError):
        f([9])


@pytest.mark.parametrize("shape", [(6, 2, 10), (-1, 20), (12, 10), (4, -1, 3)])
def test_reshapes_of_c01b_values(shape, rng):
    x, sizes = tt.ftensor4(), tt.lvector()
    op = ReshapeC01B((False,) * len(shape))
    value = whole_numbers(rng, (5, 2, 2, 6))
    f, host = (theano.function([x, sizes], op(x, sizes), mode=mode) for mode in (FLAGGED, ON_HOST))
    assert counts(f)[GpuReshapeC01B] == 1
    np.testing.assert_array_equal(f(value, shape), host(value, shape))


def test_image_acts_takes_its_output_shape_from_the_host(rng):
    h, w, shape = tt.ftensor4(), tt.ftensor4(), tt.ivector()
    f = theano.function([h, w, shape], ImageActs(stride=2)(h, w, shape), mode=FLAGGED)
    assert counts(f)[GpuImageActs] == 1
    assert f(np.zeros((4, 3, 3, 5), "f"), np.zeros((2, 3, 3, 4), "f"), [8, 7]).shape == (2, 8, 7, 5)
