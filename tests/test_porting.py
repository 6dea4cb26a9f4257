"""Programs written for cuda-convnet: names, the order of arguments, and the page that maps them."""
import importlib
import os
import re

import numpy as np
import pytest
import theano
import theano.tensor as T

import layoutopt.kernels
from layoutopt import cuda_convnet
from layoutopt.cuda_convnet import (CrossMapNorm, CrossMapNormUndo, FilterActs, ImageActs, MaxPool, MaxPoolGrad, MaxPoolRop,
                                    ProbMaxPool, ProbMaxPoolGrad, StochasticMaxPool, WeightActs, WeightedMaxPool, gpu_contiguous,
                                    max_pool_c01b, prob_max_pool_c01b, stochastic_max_pool_c01b, weighted_max_pool_c01b)
from layoutopt.kernels.reference import pool as reference

from pooling import LITTLE_C, LITTLE_C_OPTIMIZED, reals

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "porting.md")


def rows():
    """(original, ours) of all tables of the page, as written."""
    with open(PAGE) as page:
        cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page if line.startswith("|")]
    return [row[:2] for row in cells if row[0] != "original" and not set(row[0]) <= set("-")]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("original, ours", rows(), ids=lambda cell: cell[:40])
def test_each_name_of_the_page_can_be_imported(original, ours):
    if ours.startswith("none, because "):
        assert "layoutopt" not in ours
        return
    name, = names(ours)
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_page_is_complete():
    """All that the module exports, and all names that models import from the originals."""
    mapped = {name.rpartition(".")[2] for _, ours in rows() for name in names(ours)}
    originals = {name.rpartition(".")[2] for original, _ in rows() for name in names(original)}
    assert set(cuda_convnet.__all__) - mapped == {"gpu_contiguous"}  # Theano's name, told below the table
    assert set(cuda_convnet.__all__) - {"gpu_contiguous"} <= originals
    assert {"CCLayer", "Conv2DCCLayer", "MaxPool2DCCLayer", "ShuffleBC01ToC01BLayer", "bc01_to_c01b", "ShuffleC01BToBC01Layer",
            "c01b_to_bc01", "NINLayer_c01b"} <= originals  # the __all__ of Lasagne's module
    assert all(hasattr(cuda_convnet, name) for name in cuda_convnet.__all__)


# ---------------------------------------------------------------------------------------------------------------------
# The order of arguments.


@pytest.mark.parametrize("op_class", [FilterActs, ImageActs, WeightActs])
def test_convolutions_take_pad_partial_sum_stride(op_class):
    op = op_class(1, 6, 2)
    assert (op.pad, op.partial_sum, op.stride, op.ceil_mode) == (((1, 1), (1, 1)), 6, (2, 2), True)
    plain = op_class()
    assert (plain.pad, plain.partial_sum, plain.stride) == (((0, 0), (0, 0)), None, (1, 1))
    assert op_class(pad=1, partial_sum=6, stride=2) == op


@pytest.mark.parametrize("op_class", [MaxPool, MaxPoolGrad, StochasticMaxPool, WeightedMaxPool])
def test_poolings_take_ds_stride_start_outputs(op_class):
    op = op_class(3, 2, -1, 4)
    assert (op.ds, op.stride, op.start, op.outputs, op.ceil_mode) == ((3, 3), (2, 2), (-1, -1), (4, 4), True)


def test_other_orders():
    assert StochasticMaxPool(3, 2, 0, 0, 7).seed == 7
    op = ProbMaxPool(3, -1, 2)
    assert (op.ds, op.stride, op.start, op.outputs) == ((3, 3), (3, 3), (-1, -1), (2, 2))
    assert ProbMaxPoolGrad(3, 3, -1).start == (-1, -1)
    op = CrossMapNorm(size_f=5, add_scale=1e-7, pow_scale=0.75, blocked=True)(T.ftensor4())[0].owner.op
    assert op == layoutopt.kernels.CrossMapNorm(5, 1e-7, 0.75, True)


def test_nothing_is_checked_that_always_holds():
    assert cuda_convnet.check_cuda("maxout") is None and cuda_convnet.convnet_available() is True


# ---------------------------------------------------------------------------------------------------------------------
# A model as they were written for the originals: c01b between two dimshuffles.


def trained(mode):
    """(losses of 4 steps, the step) of a network with each kind of pooling, from equal weights and seeds."""
    rng = np.random.RandomState(0)
    images, labels = T.ftensor4(), T.lvector()
    filters, dense = (theano.shared((0.1 * rng.standard_normal(shape)).astype("float32")) for shape in ((3, 3, 3, 16), (16, 10)))
    h = FilterActs(0, 4, 1)(gpu_contiguous(images.dimshuffle(1, 2, 3, 0)), gpu_contiguous(filters))
    h = max_pool_c01b(T.nnet.relu(h), (3, 3), (1, 1))
    h = stochastic_max_pool_c01b(h, (2, 2), (2, 2), seed=3)
    p, _ = prob_max_pool_c01b(weighted_max_pool_c01b(h, (2, 2), (1, 1)), (2, 2))
    scores = T.nnet.softmax(T.dot(p.dimshuffle(3, 0, 1, 2).flatten(2), dense))
    loss = T.nnet.categorical_crossentropy(scores, labels).mean()
    updates = [(w, w - np.float32(0.5) * g) for w, g in zip((filters, dense), T.grad(loss, [filters, dense]))]
    step = theano.function([images, labels], loss, updates=updates, mode=mode)
    x, y = reals(rng, (16, 3, 10, 10)), rng.randint(0, 10, 16)
    return [float(step(x, y)) for _ in range(4)], step


def test_a_model_trains_with_the_flag_as_without():
    """The same draws and losses, and of the dimshuffles that of the images is left, as a conversion."""
    losses, _ = trained(LITTLE_C_OPTIMIZED)
    flagged, step = trained(LITTLE_C_OPTIMIZED.including("layoutopt"))
    np.testing.assert_allclose(flagged, losses, rtol=1e-5)
    assert losses[-1] < losses[0]
    kinds = [type(node.op) for node in step.maker.fgraph.toposort()]
    for op_class in (FilterActs, MaxPool, StochasticMaxPool, WeightedMaxPool, ProbMaxPool, ProbMaxPoolGrad, WeightActs):
        assert kinds.count(op_class) == 1
    assert kinds.count(MaxPoolGrad) == 2
    assert (kinds.count(layoutopt.kernels.ToC01B), kinds.count(layoutopt.kernels.ToBC01)) == (1, 0)
    record = layoutopt.explain(step).record
    assert record.sites and all(site.layout == "c01b" for site in record.sites)


# ---------------------------------------------------------------------------------------------------------------------
# The helpers.


def test_helpers_make_the_ops():
    x = T.ftensor4()
    assert max_pool_c01b(x, (3, 3), (2, 2)).owner.op == MaxPool(3, 2)
    assert weighted_max_pool_c01b(x, (3, 3), (2, 2), -1).owner.op == WeightedMaxPool(3, 2, -1)
    node = stochastic_max_pool_c01b(x, (3, 3), (2, 2), -1, 99).owner
    assert node.op == StochasticMaxPool(3, 2, -1)
    assert [v.get_value() for v in node.inputs[1:]] == [99, 0]  # not 1234
    t = T.ftensor4()
    p, h = prob_max_pool_c01b(x, (2, 2), t)
    assert p.owner is h.owner and p.owner.op == ProbMaxPool(2) and p.owner.inputs == [x, t]


def test_nothing_comes_from_above_by_default():
    """Also where windows do not divide the image; the original's zeros were too few."""
    x = T.ftensor4()
    zeros = prob_max_pool_c01b(x, (3, 2))[0].owner.inputs[1]
    value = theano.function([x], zeros, mode=LITTLE_C_OPTIMIZED)(np.ones((2, 7, 5, 3), "float32"))
    np.testing.assert_array_equal(value, np.zeros((2, 3, 3, 3), "float32"))
    assert value.dtype == "float32"


def test_max_pool_rop_sums_over_ties():
    x, v = T.ftensor4(), T.ftensor4()
    f = theano.function([x, v], MaxPoolRop(2, 1, -1)(x, v), mode=LITTLE_C)
    rng = np.random.RandomState(0)
    value, direction = rng.randint(0, 2, (2, 4, 5, 17)).astype("float32"), reals(rng, (2, 4, 5, 17))
    grid = MaxPool(2, 1, -1).output_grid((4, 5))
    geometry = (2, 2), (1, 1), (-1, -1)
    expected = reference.max_pool_grad_grad(value, reference.max_pool(value, grid, *geometry), direction, *geometry)
    np.testing.assert_array_equal(f(value, direction), expected)


def test_cross_map_norm_undo_is_called_as_the_original():
    images, gy = T.ftensor4(), T.ftensor4()
    norm = CrossMapNorm(3, 0.5, 0.75, False)
    acts, denoms = norm(images)
    undone = CrossMapNormUndo(3, 0.5, 0.75, False, inplace=True)(images, acts, denoms, gy)
    assert len(undone) == 2
    derived = T.Lop(acts, images, gy)
    assert undone[0].owner.op == derived.owner.op and undone[0].owner.inputs == derived.owner.inputs
