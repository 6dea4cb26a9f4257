"""Which convolutions and poolings may become c01b ops, and why the others may not.

Verdicts are held row by row against the constraints of both sets, each with a case just inside and one just outside;
a rejection must name the numbers. Of a site's c01b version the layouts and parameters are checked here, its values in
tests of whole functions. What is known of their sizes: test_sizes.py.
"""
import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.gof import Constant, FunctionGraph
from theano.gof.graph import inputs as inputs_of
from theano.tensor.nnet.abstract_conv import (AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights,
                                              AbstractConv3d)
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.opt import ShapeFeature
from theano.tensor.signal.pool import AveragePoolGrad, DownsampleFactorMaxGradGrad, MaxPoolGrad, MaxPoolRop, Pool

from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs, as_pad
from layoutopt.kernels.pool import MaxPool as C01bMaxPool, MaxPoolGrad as C01bMaxPoolGrad, MaxPoolGradGrad
from layoutopt.kernels.prob_pool import ProbMaxPool, ProbMaxPoolGrad
from layoutopt.kernels.stochastic_pool import StochasticMaxPool
from layoutopt.kernels.weighted_pool import WeightedMaxPool, WeightedMaxPoolGrad
from layoutopt.rewrites.constraints import (ALL, AVG_POOL, AVG_POOL_GRADIENT, AVG_POOLS, CONVOLUTIONS, FORWARD,
                                            IMAGE_GRADIENT, MAX_POOL, MAX_POOL_GRADIENT, MAX_POOL_SECOND, POOLS,
                                            WEIGHT_GRADIENT, judge)
from layoutopt.rewrites.layout import BC01, C01B, EITHER, rotate
from layoutopt.rewrites.shapes import Shapes
from layoutopt.rewrites.sites import read_site

IMAGES, FILTERS = (8, 4, 9, 9), (16, 4, 3, 3)
UNKNOWN = (None,) * 4

# ---------------------------------------------------------------------------------------------------------------------
# Nodes.


def tensor(shape, dtype="float32"):
    return tt.TensorType(dtype, [size == 1 for size in shape])()


def shared(*shape):
    return theano.shared(np.zeros(shape, "float32"))


W = shared(6, 4, 3, 2)


def convolution(kind, images=IMAGES, filters=FILTERS, dtype="float32", **parameters):
    """A node of this kind, told these sizes."""
    x, w, y = tensor(images, dtype), tensor(filters, dtype), tensor((images[0], filters[0], None, None), dtype)
    sizes = tt.lvector()
    ops = {FORWARD: (AbstractConv2d, (x, w)), WEIGHT_GRADIENT: (AbstractConv2d_gradWeights, (x, y, sizes)),
           IMAGE_GRADIENT: (AbstractConv2d_gradInputs, (w, y, sizes))}
    op_class, inputs = ops[kind]
    return op_class(imshp=images, kshp=filters, **parameters)(*inputs).owner


def pooling(kind, images=(8, 16, 9, 9), window=(2, 2), stride=None, pad=(0, 0), dtype="float32", **parameters):
    """A node of this kind on images of known size."""
    x = tt.alloc(tt.scalar(dtype=dtype), *images)
    parameters = dict(dict(ignore_border=True, ndim=2), **parameters)
    if kind == MAX_POOL:
        return Pool(**parameters)(x, window, stride or window, pad).owner
    y = tt.TensorType(dtype, [size == 1 for size in images[:2]] + [False] * (len(images) - 2))()
    if kind in AVG_POOLS:
        parameters = dict(dict(mode="average_inc_pad"), **parameters)
    if kind == AVG_POOL:
        return Pool(**parameters)(x, window, stride or window, pad).owner
    if kind == AVG_POOL_GRADIENT:
        return AveragePoolGrad(**parameters)(x, y, window, stride or window, pad).owner
    if kind == MAX_POOL_SECOND:
        return DownsampleFactorMaxGradGrad(**parameters)(x, y, x, window, stride or window, pad).owner
    return MaxPoolGrad(**parameters)(x, y, y, window, stride or window, pad).owner


def node_of(kind, **changes):
    return (convolution if kind in CONVOLUTIONS else pooling)(kind, **changes)


def graph_of(*outputs):
    """The outputs in a function graph, and its Shapes."""
    variables = [v for v in inputs_of(outputs) if not isinstance(v, Constant)]
    fgraph = FunctionGraph(variables, list(outputs), clone=True, features=[ShapeFeature()])
    return fgraph, Shapes(fgraph)


def site_of(node, constraints="layoutopt"):
    fgraph, shapes = graph_of(*node.outputs)
    return read_site(fgraph.outputs[0].owner, shapes, constraints)


def rejected(site, *words):
    """Assert that a site does not qualify, for a reason with these words in it."""
    assert not site.verdict.qualifies and site.choice.c01b is None
    assert all(word in site.verdict.reason for word in words), site.verdict.reason


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions that qualify, and what becomes of them.

C01B_CLASSES = {FORWARD: FilterActs, WEIGHT_GRADIENT: WeightActs, IMAGE_GRADIENT: ImageActs, MAX_POOL: C01bMaxPool,
                MAX_POOL_GRADIENT: C01bMaxPoolGrad, MAX_POOL_SECOND: MaxPoolGradGrad,
                AVG_POOL: AvgPool, AVG_POOL_GRADIENT: AvgPoolGrad}

# border mode, and the pads of a filter of 3 x 2 as (top, bottom, left, right)
BORDER_MODES = [
    ("valid", (0, 0, 0, 0)),
    ("half", (1, 1, 1, 1)),
    ("full", (2, 2, 1, 1)),
    (0, (0, 0, 0, 0)),
    (2, (2, 2, 2, 2)),
    ((1, 0), (1, 1, 0, 0)),
    ((0, 3), (0, 0, 3, 3)),
    (((1, 1), (2, 2)), (1, 1, 2, 2)),
    (((1, 2), (0, 3)), (1, 2, 0, 3)),
    (((0, 1), 2), (0, 1, 2, 2)),
]


def c01b_op(site):
    """The op of a site's c01b version, whose results have the types of the node's, turned."""
    node, version = site.node, site.choice.c01b
    operands = [tt.TensorType(x.dtype, rotate(x.broadcastable))() if need == C01B else x
                for x, need in zip(node.inputs, version.needs)]
    outputs = version.build(node, operands, version.needs)
    types = [tt.TensorType(out.dtype, rotate(out.broadcastable)) for out in node.outputs]
    assert [out.type for out in outputs] == types
    assert isinstance(outputs[0].owner.op, C01B_CLASSES[site.kind])
    assert len(outputs) == len(version.gives) == 1
    return outputs[0].owner.op


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3), (5, 4)])
@pytest.mark.parametrize("border_mode, pads", BORDER_MODES)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_qualify_and_keep_their_parameters(kind, border_mode, pads, stride, flip):
    site = site_of(convolution(kind, filters=(7, 4, 3, 2), border_mode=border_mode, subsample=stride, filter_flip=flip))
    assert (site.kind, site.verdict) == (kind, (True, "fulfils every constraint of layoutopt"))
    assert (site.facts["pads"], site.facts["stride"], site.facts["flip"]) == (pads, stride, flip)
    shape_input = (BC01,) * (kind != FORWARD)
    assert (site.choice.c01b.needs, site.choice.c01b.gives) == ((C01B, C01B) + shape_input, (C01B,))
    assert (site.choice.bc01.needs, site.choice.bc01.gives) == ((BC01, BC01) + shape_input, (BC01,))
    assert site.choice.bc01.build is None
    op = c01b_op(site)
    assert (op.pad, op.stride, op.flip, op.ceil_mode) == (as_pad(site.node.op.border_mode), stride, flip, False)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_groups_are_passed_on(kind, groups):
    """Filters have the channels of one group; images those of all."""
    filters = (16, 4 // groups, 3, 3)
    for node in (convolution(kind, filters=filters, num_groups=groups), corr(kind, num_groups=groups)):
        site = site_of(node)
        assert site.verdict.qualifies and site.facts["groups"] == c01b_op(site).groups == groups
    told = site_of(convolution(kind, UNKNOWN, filters, num_groups=groups))
    assert (told.facts["channels"], told.facts["filters"]) == (4, 16)


@pytest.mark.parametrize("images, filters", [
    ((1, 4, 9, 9), (7, 4, 3, 3)),
    ((8, 1, 9, 9), (7, 1, 3, 3)),
    ((8, 4, 9, 9), (1, 4, 3, 3)),
    ((8, 4, 1, 9), (7, 4, 1, 3)),
    ((1, 1, 1, 1), (1, 1, 1, 1)),
])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_sizes_of_1_keep_their_broadcast_flags(kind, images, filters):
    site = site_of(convolution(kind, images, filters))
    assert site.verdict.qualifies
    c01b_op(site)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_of_which_nothing_is_known_qualifies(kind):
    site = site_of(convolution(kind, UNKNOWN, UNKNOWN, border_mode="half"))
    assert site.verdict.qualifies and site.choice.c01b.seconds > 0 and site.choice.bc01.seconds > 0
    unknown = ("batch", "channels", "filters", "filter", "image", "output", "pads")
    assert [site.facts[name] for name in unknown] == [None] * len(unknown)
    c01b_op(site)


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions that do not.


@pytest.mark.parametrize("changes, words", [
    (dict(dtype="float64"), ["float64", "float32"]),
    (dict(dtype="float16"), ["float16", "float32"]),
    (dict(filter_dilation=(2, 2)), ["filter_dilation is (2, 2)"]),
    (dict(filter_dilation=(1, 2)), ["filter_dilation is (1, 2)"]),
    (dict(dtype="float64", filter_dilation=(2, 2)), ["float64"]),  # the first constraint broken is the reason
])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_beyond_the_kernels(kind, changes, words):
    rejected(site_of(convolution(kind, **changes)), *words)


def test_unshared_filters_are_rejected():
    x, w = tensor(IMAGES), tt.TensorType("float32", [False] * 6)()
    parameters = dict(imshp=IMAGES, kshp=(16, 7, 7, 4, 3, 3), unshared=True)
    forward = AbstractConv2d(**parameters)(x, w)
    for out in (forward, AbstractConv2d_gradWeights(**parameters)(x, forward, (3, 3)),
                AbstractConv2d_gradInputs(**parameters)(w, forward, (9, 9))):
        rejected(site_of(out.owner), "unshared")


def test_what_is_no_site():
    x, y = tensor(UNKNOWN), tensor(UNKNOWN)
    cube = tt.TensorType("float32", [False] * 5)
    nodes = [AbstractConv3d()(cube(), cube()), MaxPoolRop()(x, y, (2, 2)), tt.nnet.relu(x), x.dimshuffle(1, 2, 3, 0)]
    assert [site_of(out.owner) for out in nodes] == [None] * len(nodes)


@pytest.mark.parametrize("make", [
    lambda x: FilterActs()(x, x),
    lambda x: ImageActs()(x, x, (9, 9)),
    lambda x: WeightActs()(x, x, (3, 3))[0],
    lambda x: C01bMaxPool(2)(x),
    lambda x: C01bMaxPoolGrad(2)(x, x, x),
    lambda x: MaxPoolGradGrad(2)(x, x, x),
    lambda x: AvgPool(2)(x),
    lambda x: AvgPoolGrad(2)(x, (9, 9)),
    lambda x: ProbMaxPool(2)(x, x)[0],
    lambda x: ProbMaxPoolGrad(2)(x, x, x, x)[0],
    lambda x: StochasticMaxPool(2)(x),
    lambda x: WeightedMaxPool(2)(x),
    lambda x: WeightedMaxPoolGrad(2)(x, x, x),
])
def test_c01b_ops_of_the_program_stay(make):
    site = site_of(make(tensor(UNKNOWN)).owner)
    rejected(site, "written in c01b by the program")
    assert (site.kind in ALL, site.facts, set(site.choice.bc01.gives)) == (True, {}, {BC01})


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions made by hand: CorrMM never flips and takes rows and columns as scalars; ConvOp always flips.

CORR_OPS = {FORWARD: CorrMM, WEIGHT_GRADIENT: CorrMM_gradWeights, IMAGE_GRADIENT: CorrMM_gradInputs}


def corr(kind, shape=True, dtype="float32", unshared=False, **parameters):
    """A CorrMM node of this kind; `shape` says whether a gradient is given rows and columns."""
    x, y = tensor(UNKNOWN, dtype), tensor(UNKNOWN, dtype)
    w = tensor(UNKNOWN + (None,) * 2 * unshared, dtype)
    inputs = {FORWARD: (x, w), WEIGHT_GRADIENT: (x, y), IMAGE_GRADIENT: (w, y)}[kind]
    if kind != FORWARD and shape:
        inputs += ((tt.lscalar(), tt.lscalar()),)
    return CORR_OPS[kind](unshared=unshared, **parameters)(*inputs).owner


@pytest.mark.parametrize("border_mode, pads", BORDER_MODES[:5] + BORDER_MODES[7:9])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_corr_qualifies_and_keeps_its_parameters(kind, stride, border_mode, pads):
    site = site_of(corr(kind, border_mode=border_mode, subsample=stride))
    assert (site.kind, site.verdict.qualifies, site.facts["flip"]) == (kind, True, False)
    assert site.facts["pads"] == (None if border_mode in ("half", "full") else pads)
    op = c01b_op(site)
    assert (op.pad, op.stride, op.flip, op.ceil_mode) == (as_pad(border_mode), stride, False, False)


@pytest.mark.parametrize("border_mode", ["valid", "full", 1])
@pytest.mark.parametrize("kind", [WEIGHT_GRADIENT, IMAGE_GRADIENT])
def test_corr_gradients_that_compute_their_own_shape(kind, border_mode):
    site = site_of(corr(kind, shape=False, border_mode=border_mode))
    assert site.choice.c01b.needs == (C01B, C01B)
    c01b_op(site)


@pytest.mark.parametrize("changes, words", [
    (dict(dtype="float64"), ["float64", "float32"]),
    (dict(filter_dilation=(1, 2)), ["filter_dilation is (1, 2)"]),
    (dict(unshared=True), ["unshared"]),
])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_corr_beyond_the_kernels(kind, changes, words):
    rejected(site_of(corr(kind, **changes)), *words)


def conv_op(**parameters):
    return ConvOp(**dict(dict(imshp=IMAGES[1:], kshp=FILTERS[2:], nkern=FILTERS[0], bsize=IMAGES[0]), **parameters))


@pytest.mark.parametrize("mode, pads", [("valid", (0, 0, 0, 0)), ("full", (2, 2, 1, 1))])
def test_conv_op_qualifies_and_keeps_its_parameters(mode, pads):
    op = conv_op(kshp=(3, 2), output_mode=mode, dx=2, dy=3)
    site = site_of(op(tensor(IMAGES), tensor((16, 4, 3, 2))).owner)
    assert site.verdict.qualifies
    facts = dict(batch=8, channels=4, filters=16, image=(9, 9), filter=(3, 2), pads=pads, stride=(2, 3), flip=True)
    assert {name: site.facts[name] for name in facts} == facts
    op = c01b_op(site)
    assert (op.pad, op.stride, op.flip, op.ceil_mode) == (as_pad(mode), (2, 3), True, False)


def test_conv_op_that_was_told_nothing_qualifies():
    site = site_of(ConvOp()(tensor(UNKNOWN), tensor(UNKNOWN)).owner)
    assert site.verdict.qualifies and site.facts["image"] is None
    c01b_op(site)


@pytest.mark.parametrize("parameters", [dict(imshp_logical=(4, 18, 18)), dict(kshp_logical=(5, 5))])
def test_conv_op_of_larger_logical_shapes_is_rejected(parameters):
    rejected(site_of(conv_op(**parameters)(tensor(IMAGES), tensor(FILTERS)).owner), "logical shapes")


# ---------------------------------------------------------------------------------------------------------------------
# Pooling.


@pytest.mark.parametrize("changes", [
    dict(),
    dict(ignore_border=False),
    dict(window=(3, 2), stride=(1, 4)),
    dict(window=(3, 2), stride=(2, 2), ignore_border=False),
    dict(window=(3, 2), pad=(2, 1)),
    dict(images=(8, 16, 7, 9)),
    dict(images=(1, 1, 9, 9)),
])
@pytest.mark.parametrize("kind", POOLS)
def test_poolings_qualify_and_keep_their_parameters(kind, changes):
    site = site_of(pooling(kind, **changes))
    assert (site.kind, site.verdict) == (kind, (True, "fulfils every constraint of layoutopt"))
    window, pad = changes.get("window", (2, 2)), changes.get("pad", (0, 0))
    tensors = {MAX_POOL: (C01B,), AVG_POOL: (C01B,), AVG_POOL_GRADIENT: (EITHER, C01B)}.get(kind, (C01B,) * 3)
    assert (site.choice.c01b.needs, site.choice.c01b.gives) == (tensors + (BC01,) * 3, (C01B,))
    op = c01b_op(site)
    assert (op.ds, op.stride, op.start) == (window, changes.get("stride", window), (-pad[0], -pad[1]))
    assert op.ceil_mode is not changes.get("ignore_border", True)


@pytest.mark.parametrize("changes, words", [
    (dict(dtype="float64"), ["float64", "float32"]),
    (dict(images=(16, 9, 9)), ["2 of 3 axes"]),
    (dict(images=(8, 16, 9, 9, 9)), ["2 of 5 axes"]),
    (dict(images=(8, 16, 9, 9, 9), window=(2, 2, 2), pad=(0, 0, 0), ndim=3), ["3 of 5 axes"]),
    (dict(images=(8, 9, 9, 9), window=(2, 2, 2), pad=(0, 0, 0), ndim=3), ["3 of 4 axes"]),
    (dict(window=tt.constant([0, 2]), stride=(1, 1)), ["window (0, 2)"]),
    (dict(stride=(2, 0)), ["stride (2, 0)"]),
    (dict(pad=tt.constant([1, 1]), ignore_border=False), ["pad (1, 1)", "window (2, 2)", "ignore_border=True"]),
    (dict(window=tt.lvector()), ["window", "not known at compile time"]),
    (dict(stride=tt.lvector()), ["stride", "not known at compile time"]),
    (dict(pad=tt.lvector()), ["pad", "not known at compile time"]),
])
@pytest.mark.parametrize("kind", POOLS)
def test_poolings_beyond_the_kernels(kind, changes, words):
    rejected(site_of(pooling(kind, **changes)), *words)


@pytest.mark.parametrize("pad", [(0, 0), (1, 1)])
@pytest.mark.parametrize("mode", ["sum", "average_inc_pad", "average_exc_pad"])
@pytest.mark.parametrize("kind", AVG_POOLS)
def test_averages_keep_their_mode(kind, mode, pad):
    site = site_of(pooling(kind, mode=mode, pad=pad))
    assert site.kind == kind
    if (kind, mode, pad) == (AVG_POOL_GRADIENT, "average_exc_pad", (1, 1)):
        rejected(site, "pad (1, 1)", "average_exc_pad", "Theano refuses")
    else:
        assert site.verdict.qualifies and c01b_op(site).mode == mode


@pytest.mark.parametrize("kind", POOLS)
def test_a_pad_as_large_as_the_window_which_theano_refuses_too(kind):
    facts = dict(site_of(pooling(kind)).facts, window=(3, 2), pad=(1, 2))
    assert judge(kind, dict(facts, pad=(2, 1))).qualifies
    verdict = judge(kind, facts)
    assert not verdict.qualifies and "pad (1, 2) with window (3, 2)" in verdict.reason


def test_images_have_the_channels_that_filters_have_now():
    fgraph, shapes = graph_of(AbstractConv2d()(tensor(UNKNOWN), W))
    site = read_site(fgraph.outputs[0].owner, shapes)
    assert site.facts["channels"] == 4 and shapes.estimate(site.node.inputs[0])[1] == 4
    fgraph, shapes = graph_of(AbstractConv2d(num_groups=3)(tensor(UNKNOWN), W))
    site = read_site(fgraph.outputs[0].owner, shapes)
    assert site.facts["channels"] == 12 and shapes.estimate(site.node.inputs[0])[1] == 12


def test_a_pooling_of_which_nothing_is_known_qualifies():
    site = site_of(Pool(ignore_border=True)(tensor(UNKNOWN), (2, 2)).owner)
    assert site.verdict.qualifies
    assert [site.facts[name] for name in ("batch", "channels", "image")] == [None] * 3


# ---------------------------------------------------------------------------------------------------------------------
# The constraints of the original kernels, each at its limit: (kinds, what is allowed, what is not, words of the reason)


def channels(count):
    return dict(images=(8, count, 9, 9), filters=(16, count, 3, 3))


def grouped(groups, channels, filters):
    return dict(num_groups=groups, images=(8, channels, 9, 9), filters=(filters, channels // groups, 3, 3))


CORRELATIONS = (FORWARD, IMAGE_GRADIENT)
ORIGINAL_POOLS = (MAX_POOL, MAX_POOL_GRADIENT, AVG_POOL, AVG_POOL_GRADIENT)
LIMITS = [
    (CONVOLUTIONS, dict(filters=(16, 4, 3, 3)), dict(filters=(16, 4, 3, 2)), ["filters of (3, 2)"]),
    (CONVOLUTIONS, dict(filters=(16, 4, 1, 1)), dict(filters=(16, 4, 1, 3)), ["filters of (1, 3)"]),
    (CONVOLUTIONS, dict(subsample=(2, 2)), dict(subsample=(2, 1)), ["stride (2, 1)"]),
    (CONVOLUTIONS, dict(subsample=(3, 3)), dict(subsample=(4, 4)), ["stride (4, 4)", "filter (3, 3)"]),
    (CONVOLUTIONS, dict(border_mode=1), dict(border_mode=(1, 2)), ["pads (1, 1, 2, 2)"]),
    (CONVOLUTIONS, dict(border_mode="half"), dict(border_mode=((1, 2), (1, 2))), ["pads (1, 2, 1, 2)"]),
    (CONVOLUTIONS, dict(border_mode="full"), dict(border_mode=((0, 1), 1)), ["pads (0, 1, 1, 1)"]),
    (CONVOLUTIONS, dict(filters=(16, 4, 3, 3)), dict(filters=(8, 4, 3, 3)), ["8 filters"]),
    (CONVOLUTIONS, dict(filters=(32, 4, 3, 3)), dict(filters=(24, 4, 3, 3)), ["24 filters"]),
    (CONVOLUTIONS, dict(filters=(48, 4, 3, 3)), dict(filters=(17, 4, 3, 3)), ["17 filters"]),
    (CONVOLUTIONS, grouped(2, 8, 32), grouped(2, 8, 16), ["16 filters in 2 groups"]),
    (CONVOLUTIONS, grouped(3, 12, 48), grouped(3, 12, 32), ["32 filters in 3 groups"]),
    ((FORWARD,), grouped(2, 4, 32), grouped(2, 6, 32), ["6 channels in 2 groups", "2 colours"]),
    ((IMAGE_GRADIENT, WEIGHT_GRADIENT), grouped(2, 8, 32), grouped(2, 4, 32), ["4 channels in 2 groups", "4 colours"]),
    (CORRELATIONS, channels(1), channels(5), ["5 channels"]),
    (CORRELATIONS, channels(2), channels(7), ["7 channels"]),
    (CORRELATIONS, channels(3), channels(9), ["9 channels"]),
    (CORRELATIONS, channels(6), channels(15), ["15 channels"]),
    ((WEIGHT_GRADIENT,), channels(1), channels(5), ["5 channels"]),
    ((WEIGHT_GRADIENT,), channels(2), channels(6), ["6 channels"]),
    ((WEIGHT_GRADIENT,), channels(3), channels(10), ["10 channels"]),
    ((WEIGHT_GRADIENT,), channels(8), channels(14), ["14 channels"]),
    (ORIGINAL_POOLS, dict(images=(8, 16, 9, 9)), dict(images=(8, 16, 9, 8)), ["images of (9, 8)"]),
    (ORIGINAL_POOLS, dict(window=(3, 3)), dict(window=(3, 2)), ["windows of (3, 2)"]),
    (ORIGINAL_POOLS, dict(stride=(1, 1)), dict(stride=(2, 1)), ["stride (2, 1)"]),
    (ORIGINAL_POOLS, dict(stride=(2, 2)), dict(stride=(3, 3)), ["stride (3, 3)", "window (2, 2)"]),
    (ORIGINAL_POOLS, dict(window=(9, 9)), dict(window=(10, 10), ignore_border=False),
     ["window (10, 10)", "image (9, 9)"]),
    ((MAX_POOL_GRADIENT,), dict(images=(8, 32, 9, 9)), dict(images=(8, 8, 9, 9)), ["8 channels"]),
    ((MAX_POOL_GRADIENT,), dict(images=(8, 16, 9, 9)), dict(images=(8, 17, 9, 9)), ["17 channels"]),
    ((AVG_POOL_GRADIENT,), dict(images=(8, 32, 9, 9)), dict(images=(8, 24, 9, 9)), ["24 channels"]),
    (AVG_POOLS, dict(mode="average_exc_pad"), dict(mode="sum"), ["'sum'", "averages only"]),
    (AVG_POOLS, dict(pad=(0, 0)), dict(pad=(1, 1)), ["pad (1, 1)", "average_inc_pad"]),
    # and what these kernels cannot do is out here, too
    (CONVOLUTIONS, dict(), dict(dtype="float64"), ["float64"]),
    (CONVOLUTIONS, dict(), dict(filter_dilation=(2, 2)), ["(2, 2)"]),
]


@pytest.mark.parametrize("kind, inside, outside, words", [
    (kind, inside, outside, words) for kinds, inside, outside, words in LIMITS for kind in kinds])
def test_limits_of_the_original_kernels(kind, inside, outside, words):
    allowed = site_of(node_of(kind, **inside), "cuda_convnet").verdict
    assert allowed == (True, "fulfils every constraint of cuda_convnet")
    rejected(site_of(node_of(kind, **outside), "cuda_convnet"), *words)


def test_the_original_has_no_second_derivative_of_pooling():
    rejected(site_of(pooling(MAX_POOL_SECOND), "cuda_convnet"), "no second derivative")


@pytest.mark.parametrize("kind, changes", [
    (FORWARD, dict(images=(8, 4, 9, 7))),
    (WEIGHT_GRADIENT, dict(images=(8, 4, 9, 7))),
    (IMAGE_GRADIENT, dict(images=(8, 4, 9, 7))),
    (FORWARD, dict(images=(None, 4, None, None))),
    (FORWARD, dict(images=(1, 4, 9, 9))),
    (FORWARD, dict(filter_flip=False)),
    (MAX_POOL, dict(images=(8, 5, 9, 9))),
    (MAX_POOL, dict(pad=(1, 1))),
    (MAX_POOL, dict(ignore_border=False)),
    (AVG_POOL, dict(mode="average_exc_pad", pad=(1, 1))),
    (AVG_POOL, dict(ignore_border=False)),
])
def test_what_the_original_kernels_do_not_mind(kind, changes):
    assert site_of(node_of(kind, **changes), "cuda_convnet").verdict.qualifies


@pytest.mark.parametrize("kind, changes, name", [
    *((kind, dict(images=UNKNOWN, filters=(16, None, 3, 3)), "channels") for kind in CONVOLUTIONS),
    *((kind, dict(filters=(None, 4, 3, 3)), "filters") for kind in CONVOLUTIONS),
    *((kind, dict(filters=(16, 4, None, 3)), "filter") for kind in CONVOLUTIONS),
    *((kind, dict(filters=(16, 4, 3, None), border_mode="half"), "filter") for kind in CONVOLUTIONS),
    *((kind, dict(images=(8, 16, tt.lscalar(), 9)), "image") for kind in POOLS),
    (MAX_POOL_GRADIENT, dict(images=(8, tt.lscalar(), 9, 9)), "channels"),
])
def test_an_unknown_size_is_no_excuse(kind, changes, name):
    site = site_of(node_of(kind, **changes), "cuda_convnet")
    rejected(site)
    assert site.verdict.reason == name + " not known at compile time"
    assert site_of(node_of(kind, **changes)).verdict.qualifies  # our kernels take any


def test_an_unknown_set_of_constraints_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'pylearn2'.*cuda_convnet or layoutopt"):
        site_of(convolution(FORWARD), "pylearn2")
    with pytest.raises(ValueError, match=r"'pylearn2'.*cuda_convnet or layoutopt"):
        site_of(pooling(MAX_POOL), "pylearn2")
