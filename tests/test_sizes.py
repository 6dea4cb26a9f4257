"""What is known of a site's sizes (`Shapes`): what is proven is never a size that only holds at present."""
import numpy as np
import pytest
import theano
import theano.sparse
import theano.tensor as tt
from theano.compile import SharedVariable
from theano.gof import FunctionGraph
from theano.ifelse import ifelse
from theano.printing import Print
from theano.sandbox.rng_mrg import MRG_RandomStreams
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.opt import ShapeFeature
from theano.tensor.signal.pool import Pool

from layoutopt.rewrites.constraints import FORWARD
from layoutopt.rewrites.region import find_region
from layoutopt.rewrites.shapes import ASSUMED, PRESENT, PROVEN, Assumed, Shapes
from layoutopt.rewrites.sites import read_site
from test_sites import IMAGES, UNKNOWN, W, convolution, graph_of, rejected, shared, site_of, tensor

# ---------------------------------------------------------------------------------------------------------------------
# What is known of a site's sizes.


def facts_of(out, *names):
    site = site_of(out.owner)
    return tuple(site.facts[name] for name in names)


def test_sizes_come_from_what_the_convolution_was_told():
    site = site_of(convolution(FORWARD, (8, 4, 9, 7), (16, 4, 3, 2)))
    assert [site.facts[name] for name in ("batch", "channels", "image", "filters", "filter", "output")] == [
        8, 4, (9, 7), 16, (3, 2), (7, 6)]


def test_sizes_may_be_told_as_constant_variables():
    out = tt.nnet.conv2d(tensor(UNKNOWN), tensor(UNKNOWN), input_shape=(tt.constant(8), 4, np.int32(9), None),
                         filter_shape=(tt.constant(np.int8(16)), None, 3, 3))
    assert facts_of(out, "batch", "channels", "image", "filters", "filter") == (8, 4, None, 16, (3, 3))


def test_each_size_from_whoever_knows_it():
    out = AbstractConv2d(imshp=(None, None, 9, 9))(tensor(UNKNOWN), shared(16, 4, 3, 3))
    assert facts_of(out, "batch", "channels", "image", "filters", "filter", "output") == (
        None, 4, (9, 9), 16, (3, 3), (7, 7))


def test_filters_that_are_constants():
    out = AbstractConv2d()(tensor(UNKNOWN), tt.constant(np.zeros((16, 4, 3, 3), "float32")))
    assert facts_of(out, "channels", "filters", "filter") == (4, 16, (3, 3))


def test_sizes_through_other_ops():
    x = tt.tanh(tt.fmatrix().reshape((-1, 4, 9, 9)))
    out = AbstractConv2d()(x[:, :, 1:], shared(16, 4, 3, 3))
    assert facts_of(out, "batch", "image", "output") == (None, (8, 9), (6, 7))


def test_sizes_after_a_reshape_to_a_batch_that_is_unknown():
    x = tt.fmatrix()
    out = AbstractConv2d()(x.reshape((x.shape[0], 4, 9, 9)), shared(16, 4, 3, 3))
    assert facts_of(out, "batch", "channels", "image", "output") == (None, 4, (9, 9), (7, 7))


def test_gradients_know_sizes_from_the_output_gradient():
    x, y = tensor((None, 4, None, None)), tt.alloc(np.float32(0), 8, 16, 7, 7)
    out = AbstractConv2d_gradWeights()(x, y, (3, 3))
    assert facts_of(out, "batch", "filters", "filter", "output") == (8, 16, (3, 3), (7, 7))
    out = AbstractConv2d_gradInputs()(shared(16, 4, 3, 3), y, (9, 9))
    assert facts_of(out, "batch", "channels", "image", "pads") == (8, 4, (9, 9), (0, 0, 0, 0))


def test_a_verdict_follows_the_weights_of_the_moment():
    w = shared(16, 4, 3, 3)
    out = AbstractConv2d()(tensor(UNKNOWN), w)
    assert site_of(out.owner, "cuda_convnet").verdict.qualifies
    w.set_value(np.zeros((10, 4, 3, 3), "float32"))
    rejected(site_of(out.owner, "cuda_convnet"), "10 filters")


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: levels of trust.


def levels(out, axis=0):
    """(proven, present, assumed) size of one axis of a value."""
    fgraph, shapes = graph_of(out)
    return tuple(shapes.sizes(fgraph.outputs[0], trust)[axis] for trust in (PROVEN, PRESENT, ASSUMED))


X, N = tensor(UNKNOWN), tt.lscalar()


@pytest.mark.parametrize("out, axis, expected", [
    (X, 0, (None, None, 128)),
    (X, 1, (None, None, 32)),
    (X, 3, (None, None, 32)),
    (tt.fmatrix(), 0, (None, None, 128)),
    (tt.fmatrix(), 1, (None, None, 512)),
    (tt.frow(), 0, (1, 1, 1)),
    (W, 0, (None, 6, 6)),
    (tt.sqr(W), 1, (None, 4, 4)),
    (W.dimshuffle(1, 0, 2, 3), 0, (None, 4, 4)),
    (W.dimshuffle("x", 0, 1, 2, 3), 0, (1, 1, 1)),
    (W.flatten(2), 1, (None, 24, 24)),
    (W.reshape((3, -1)), 0, (3, 3, 3)),
    (W.reshape((3, -1)), 1, (None, 48, 48)),
    (W[1:4], 0, (None, 3, 3)),
    (tt.zeros_like(W), 2, (None, 3, 3)),
    (tt.concatenate([W, W]), 0, (None, 12, 12)),
    (tt.alloc(0., W.shape[0] + 1, 5), 0, (None, 7, 7)),
    (tt.alloc(0., W.shape[0] + 1, 5), 1, (5, 5, 5)),
    (tt.alloc(0., N, 5), 0, (None, None, 128)),
    (X.reshape((X.shape[0], 4, 3, 2)), 0, (None, None, 128)),
    (X.reshape((X.shape[0], 4, 3, 2)), 1, (4, 4, 4)),
    (X.reshape((X.shape[0], 4, 3, 2)).flatten(2), 1, (None, None, 24)),
    (tt.sqr(tt.constant(np.zeros((5, 4), "float32"))), 0, (5, 5, 5)),
    (tt.switch(X.shape[0] > 2, W, X), 1, (None, 4, 4)),
])
def test_levels_of_trust(out, axis, expected):
    assert levels(out, axis) == expected


def test_weights_may_change_so_their_sizes_are_not_proven():
    w = shared(6, 4)
    out = w.reshape((6, 4)) * 2
    assert levels(w) == (None, 6, 6)
    w.set_value(np.zeros((5, 4), "float32"))
    assert levels(w) == (None, 5, 5)
    assert levels(out) == (6, 6, 6)


def test_assumed_sizes_can_be_set():
    fgraph, _ = graph_of(tt.sqr(X))
    shapes = Shapes(fgraph, assumed=Assumed(batch=7, channels=5))
    assert shapes.estimate(fgraph.outputs[0]) == (7, 5, 32, 32)
    assert shapes.bytes(fgraph.outputs[0]) == 4 * 7 * 5 * 32 * 32


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: hints.


def test_hints_are_sizes_at_present_and_of_the_inputs_they_come_from():
    fgraph, shapes = graph_of(tt.sqr(X))
    out, = fgraph.outputs
    x, = out.owner.inputs
    shapes.hint(x, (8, None, 9, None))
    shapes.hint(out, (1, None, 1, 7))  # the first hint holds
    assert shapes.present(x) == shapes.present(out) == (8, None, 9, 7)
    assert shapes.sizes(x, PROVEN) == UNKNOWN
    assert shapes.estimate(out) == (8, 32, 9, 7)


def test_hints_of_what_no_single_input_decides_tell_nothing():
    fgraph, shapes = graph_of(tt.concatenate([X, X], axis=2))
    out, = fgraph.outputs
    shapes.hint(out, (8, None, 30, None))
    assert shapes.present(out) == (8, None, None, None)


def test_a_later_hint_adds_to_an_earlier_one_and_to_what_was_read():
    fgraph, shapes = graph_of(tt.sqr(X))
    out, = fgraph.outputs
    x, = out.owner.inputs
    assert shapes.present(out) == UNKNOWN
    shapes.hint(x, (8, None, 9, None))
    assert shapes.present(out) == (8, None, 9, None)
    shapes.hint(x, (None, 4, 7, None))
    assert shapes.present(out) == (8, 4, 9, None)
    shapes.hint(x, UNKNOWN)
    assert shapes.present(out) == (8, 4, 9, None)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: origins. Expected: a number, an axis of the first input, or None where it must not be told to be either.


@pytest.mark.parametrize("make, axis, expected", [
    (lambda x: x, 0, 0),
    (lambda x: x, 2, 2),
    (lambda x: tt.tanh(x) * 2, 0, 0),
    (lambda x: x.reshape((x.shape[0], -1)), 0, 0),
    (lambda x: x.flatten(2), 0, 0),
    (lambda x: x.flatten(3), 1, 1),
    (lambda x: x.flatten(2).reshape((x.shape[0], 4, 3, 2)), 0, 0),
    (lambda x: x.flatten(2).reshape((x.shape[0], 4, 3, 2)), 1, 4),
    (lambda x: x.flatten(2).reshape(x.shape), 1, 1),
    (lambda x: x.reshape((x.shape[0:2][1], -1)), 0, 1),
    (lambda x: x.reshape((x.shape[1:][1:][0], -1)), 0, 2),
    (lambda x: x.reshape((x.shape[0], -1)).dimshuffle(1, 0), 1, 0),
    (lambda x: AbstractConv2d()(x, W), 0, 0),
    (lambda x: Pool(ignore_border=True)(tt.nnet.relu(AbstractConv2d()(x, W)), (2, 2)), 0, 0),
    (lambda x: tt.alloc(np.float32(0), x.shape[0], 5), 0, 0),
    (lambda x: tt.dot(x.flatten(2), tt.fmatrix()), 0, 0),
    (lambda x: x.sum(axis=(2, 3)), 1, 1),
    (lambda x: x.sum(axis=0, keepdims=True), 0, 1),
    (lambda x: x.reshape((5, -1)), 0, 5),
    (lambda x: x.reshape((x.shape[0] * 1 + 1, -1)), 0, None),
    (lambda x: x.reshape((x.shape[0] * x.shape[1], -1)), 0, None),
    (lambda x: x.reshape((-1, 24)), 0, None),
    (lambda x: x.reshape((N, 24)), 0, None),
    (lambda x: x.reshape((x.shape[-1], -1)), 0, None),
    (lambda x: x.reshape((x.shape[::-1][0], -1)), 0, None),
    (lambda x: x.reshape((x.shape[-2:][0], -1)), 0, 2),
    (lambda x: x.reshape((x.shape[-9:][0], -1)), 0, 0),
    (lambda x: x.reshape((x.nonzero()[0][-2:][0], -1)), 0, None),
    (lambda x: tt.split(x, [2, 2], 2, axis=1)[1], 0, 0),
    (lambda x: tt.split(x, [2, 2], 2, axis=1)[1], 1, 2),
    (lambda x: tt.split(x, [2, N], 2, axis=1)[1], 3, 3),
    (lambda x: tt.split(x, [2, 2], 2, axis=1)[1].flatten(2), 0, 0),
    (lambda x: tt.split(x.flatten(2).reshape(x.shape), [2, 2], 2, axis=1)[1].flatten(3), 0, 0),
    (lambda x: MRG_RandomStreams(1).uniform(tuple(x.shape[i] for i in range(4))), 1, 1),
    (lambda x: MRG_RandomStreams(1).uniform((x.shape[0], 5)), 1, 5),
    (lambda x: tt.alloc(np.float32(0), tt.inc_subtensor(x.shape[0], 5)[0]), 0, None),
    (lambda x: tt.alloc(np.float32(0), tt.set_subtensor(x.shape[1:], 5)[1]), 0, None),
    (lambda x: tt.alloc(np.float32(0), tt.set_subtensor(x.shape[N], 5)[1]), 0, None),
    (lambda x: tt.alloc(np.float32(0), tt.set_subtensor(x.shape[-1], 5)[3]), 0, None),
    (lambda x: x[1:], 0, None),
    (lambda x: tt.concatenate([x, x]), 0, None),
])
def test_origins(make, axis, expected):
    x = tensor(UNKNOWN)
    fgraph, shapes = graph_of(make(x), tt.sqr(x))
    out, (x,) = fgraph.outputs[0], fgraph.outputs[1].owner.inputs
    origin = shapes.axis_origin(out, axis)
    known = isinstance(origin, (int, tuple))
    is_axis = make(x) is x or (known and not isinstance(origin, int))
    if expected is None:
        assert not known
    elif is_axis:
        assert origin == (x, expected)
    else:
        assert origin == expected


def test_an_origin_that_cannot_be_told_is_the_scalar_itself():
    n = tt.lscalar()
    fgraph, shapes = graph_of(tt.alloc(np.float32(0), n, 5))
    assert shapes.axis_origin(fgraph.outputs[0], 0) is fgraph.outputs[0].owner.inputs[1]


def test_origins_of_two_inputs_differ():
    fgraph, shapes = graph_of(tt.tanh(tt.fmatrix()), tt.tanh(tt.fmatrix()))
    first, second = (shapes.axis_origin(out, 0) for out in fgraph.outputs)
    assert first != second


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: graphs that are deep, or odd.


def network(depth):
    h = tensor((None, 16, None, None))
    for _ in range(depth):
        h = tt.nnet.relu(AbstractConv2d(kshp=(16, 16, 3, 3), border_mode="half")(h, shared(16, 16, 3, 3)))
    return h


def test_networks_may_be_deeper_than_the_recursion_limit():
    fgraph, shapes = graph_of(network(300).flatten(2))
    out, = fgraph.outputs
    assert shapes.estimate(out) == (128, 16 * 32 * 32)
    assert isinstance(shapes.axis_origin(out, 0), tuple)
    assert sum(site.verdict.qualifies for site in find_region(fgraph, Shapes(fgraph)).sites) == 300


def test_without_shape_inference_little_is_known_and_nothing_breaks():
    out = tt.nnet.relu(AbstractConv2d(imshp=IMAGES)(X, W))
    fgraph = FunctionGraph([X, W], [out], clone=True)
    shapes = Shapes(fgraph)
    conv = next(node for node in fgraph.apply_nodes if isinstance(node.op, AbstractConv2d))
    assert read_site(conv, shapes).verdict.qualifies
    assert shapes.present(conv.inputs[0]) == IMAGES
    assert shapes.present(fgraph.outputs[0]) == UNKNOWN
    assert shapes.axis_origin(fgraph.outputs[0], 0) is None


ODD = {
    "an element that does not exist": lambda x: tt.arange(tt.stack([x.shape[0], x.shape[1]])[5]),
    "a division by zero": lambda x: tt.alloc(np.float32(0), W.shape[0] // (W.shape[0] - 6), 5),
    "a comparison": lambda x: tt.arange(tt.gt(x.shape[0], 5)),
    "a variable index": lambda x: tt.alloc(np.float32(0), x.shape[N], 5),
    "scan": lambda x: theano.scan(lambda row: row * 2, sequences=[x])[0],
    "a branch": lambda x: ifelse(x.sum() > 0, x, x[::2]),
    "sparse": lambda x: theano.sparse.csr_from_dense(x.flatten(2)),
    "dense from sparse": lambda x: theano.sparse.csr_from_dense(x.flatten(2)).toarray(),
    "random": lambda x: tt.shared_randomstreams.RandomStreams(1).uniform(x.shape),
    "nonzero": lambda x: tt.nonzero(x.flatten())[0].dimshuffle(0, "x"),
    "unique": lambda x: tt.extra_ops.Unique()(x.flatten()).dimshuffle(0, "x"),
    "the shape of a shape": lambda x: tt.alloc(np.float32(0), x.shape.shape[0], 5),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_graphs_break_nothing(make):
    fgraph, shapes = graph_of(make(tensor(UNKNOWN)))
    for node in fgraph.toposort():
        for out in node.outputs:
            for axis in range(len(getattr(out, "broadcastable", ()))):
                proven, present, assumed = (shapes.sizes(out, trust)[axis] for trust in (PROVEN, PRESENT, ASSUMED))
                assert proven in (None, present) and present in (None, assumed)
                shapes.axis_origin(out, axis)


def test_sizes_are_found_without_carrying_out_the_program(capsys):
    fgraph, shapes = graph_of(tt.alloc(np.float32(0), Print("size")(W.shape[0]), 5))
    assert shapes.present(fgraph.outputs[0]) == (None, 5)
    assert capsys.readouterr().out == ""


def test_sizes_of_shared_variables_are_read_without_a_copy_of_their_data():
    class Watched(type(W)):
        def get_value(self, borrow=False, return_internal_type=False):
            assert borrow and return_internal_type
            return super().get_value(borrow, return_internal_type)

    w = Watched(None, W.type, W.get_value(), strict=False)
    assert isinstance(w, SharedVariable)
    fgraph = FunctionGraph([w], [tt.sqr(w)], clone=False, features=[ShapeFeature()])
    assert Shapes(fgraph).present(fgraph.outputs[0]) == (6, 4, 3, 2)
