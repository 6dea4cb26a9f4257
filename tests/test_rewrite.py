"""Whole graphs with and without the flag: the same numbers, and no conversion but the necessary ones.

Inputs are small whole numbers, and the graphs add, multiply and take maxima: every sum is exact in float32 in whatever
order it is taken, so results must be equal to the last bit.
"""
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import CpuContiguous, cpu_contiguous
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import BaseAbstractConv
from theano.tensor.opt import ShapeFeature
from theano.tensor.signal.pool import Pool, pool_2d

import layoutopt
from layoutopt import optimizer
from layoutopt.kernels import FilterActs, MaxPool, ToBC01, ToC01B, gpu_contiguous
from layoutopt.optimizer import LayoutOptimizer

STOCK = theano.compile.mode.get_mode("FAST_RUN").excluding("layoutopt")
FLAGGED = theano.compile.mode.get_mode("FAST_RUN").including("layoutopt")
BC01_OPS = (BaseAbstractConv, Pool)


def whole(*shape, seed=0, most=2):
    """Random whole numbers, float32."""
    return np.random.RandomState(seed).randint(-most, most + 1, shape).astype("float32")


def weights(filters, channels, side=3, seed=1, name="w"):
    return theano.shared(whole(filters, channels, side, side, seed=seed, most=1), name=name)


def bias(filters, name="b"):
    return theano.shared(whole(filters, seed=2), name=name)


def images(known=None, name="x"):
    """A float32 image tensor variable and, with its shape, a value."""
    return T.TensorType("float32", (False,) * 4)(name), None if known is None else whole(*known, seed=3)


def op_count(function, *classes):
    return sum(isinstance(node.op, classes) for node in function.maker.fgraph.apply_nodes)


def moving_dimshuffles(function):
    """Dimshuffles of image tensors between the layouts, but for those of one number per channel."""
    nodes = [node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, DimShuffle)
             and sum(not flag for flag in node.inputs[0].broadcastable) > 1]
    return [node for node in nodes if tuple(node.op.new_order) in ((1, 2, 3, 0), (3, 0, 1, 2))]


def conversions(function):
    """Names of what is converted, after checking the report against the graph that runs."""
    record = layoutopt.explain(function).record
    assert len(record.conversions) == op_count(function, ToC01B, ToBC01) + len(moving_dimshuffles(function))
    return sorted(conversion.value for conversion in record.conversions)


def check(inputs, outputs, values, modes=(STOCK, FLAGGED), **kwargs):
    """Compile both ways, compare exactly, return the flagged function."""
    stock, flagged = (theano.function(inputs, outputs, mode=mode, **kwargs) for mode in modes)
    for expected, actual in zip(stock(*values), flagged(*values)):
        np.testing.assert_array_equal(expected, actual)
        assert np.asarray(expected).dtype == np.asarray(actual).dtype
    return flagged


def layer(x, w, b=None, pool=True, **kwargs):
    """Convolution, max-pooling, bias and rectifier."""
    y = conv2d(x, w, **kwargs)
    y = pool_2d(y, (2, 2), ignore_border=True) if pool else y
    return T.nnet.relu(y if b is None else y + b.dimshuffle("x", 0, "x", "x"))


def network(x, shape):
    """Two layers on images of known shape, flattened into a dense one; output and parameters."""
    batch, channels = shape[:2]
    w1, w2, b1, b2 = weights(6, channels), weights(5, 6, name="w2"), bias(6), bias(5, "b2")
    y = layer(layer(x, w1, b1, input_shape=shape, filter_shape=(6, channels, 3, 3)), w2, b2)
    flat = y.flatten(2)
    features = 5 * ((((shape[2] - 2) // 2) - 2) // 2) * ((((shape[3] - 2) // 2) - 2) // 2)
    dense = theano.shared(whole(features, 4, seed=5, most=1), name="dense")
    return T.dot(flat, dense), [w1, b1, w2, b2, dense]


def test_forward_converts_only_what_comes_in():
    x, value = images((32, 3, 18, 16))
    out, _ = network(x, (32, 3, 18, 16))
    f = check([x], [out], [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["w", "w2", "x"]


def test_training_graph_converts_input_filters_and_their_gradients():
    x, value = images((32, 3, 18, 16))
    out, params = network(x, (32, 3, 18, 16))
    grads = T.grad(out.sum(), params)
    f = check([x], [out] + grads, [value])
    assert op_count(f, *BC01_OPS) == 0
    assert len(conversions(f)) == 5
    assert conversions(f)[-3:] == ["w", "w2", "x"]


def test_updates():
    x, value = images((32, 3, 18, 16))
    out, params = network(x, (32, 3, 18, 16))
    grads = T.grad(out.sum(), params)
    after = {}
    for mode in (STOCK, FLAGGED):
        before = [p.get_value() for p in params]
        f = theano.function([x], out, updates=[(p, p - g) for p, g in zip(params, grads)], mode=mode)
        f(value)
        after[mode] = [p.get_value() for p in params]
        for p, old in zip(params, before):
            p.set_value(old)
    for expected, actual in zip(after[STOCK], after[FLAGGED]):
        np.testing.assert_array_equal(expected, actual)


def test_unknown_shapes():
    """No imshp, no kshp, any number of images: sizes are read when the function runs."""
    x, _ = images()
    w1, w2 = T.tensor4("w1", dtype="float32"), T.tensor4("w2", dtype="float32")
    out = layer(layer(x, w1), w2, pool=False, border_mode="half")
    f = check([x, w1, w2], [out] + T.grad(out.sum(), [w1, w2]), [whole(9, 2, 11, 14), whole(4, 2, 3, 5), whole(3, 4, 3, 3)])
    stock = theano.function([x, w1, w2], out, mode=STOCK)
    for shape in ((1, 2, 11, 14), (127, 2, 20, 7)):
        value = whole(*shape)
        np.testing.assert_array_equal(f(value, whole(4, 2, 3, 5), whole(3, 4, 3, 3))[0],
                                      stock(value, whole(4, 2, 3, 5), whole(3, 4, 3, 3)))
    assert op_count(f, *BC01_OPS) == 0


@pytest.mark.parametrize("border_mode", ["valid", "half", "full", 1, (2, 1), ((1, 2), (0, 1))], ids=str)
@pytest.mark.parametrize("subsample", [(1, 1), (2, 3)], ids=str)
def test_border_modes_strides_and_flips(border_mode, subsample):
    """Rectangular images and filters; forward and both gradients, which need all three ops."""
    x, value = images((17, 3, 13, 12))
    w = theano.shared(whole(5, 3, 4, 3, seed=1, most=1), name="w")
    outputs = []
    for flip in (True, False):
        y = conv2d(x, w, border_mode=border_mode, subsample=subsample, filter_flip=flip)
        outputs += [y] + T.grad((y * y).sum(), [x, w])
    f = check([x], outputs, [value])
    assert op_count(f, *BC01_OPS) == 0


@pytest.mark.parametrize("ignore_border, stride, pad", [(True, (2, 2), (0, 0)), (False, (2, 2), (0, 0)), (True, (3, 2), (1, 1)),
                                                         (False, (1, 3), (0, 0))], ids=str)
def test_pooling_and_its_gradient(ignore_border, stride, pad):
    """Whole numbers make ties, all of which get the gradient."""
    x, value = images((33, 2, 11, 13))
    w = weights(4, 2)
    y = pool_2d(conv2d(x, w), (3, 3), ignore_border=ignore_border, stride=stride, pad=pad)
    f = check([x], [y] + T.grad((y * y).sum(), [x, w]), [value])
    assert op_count(f, *BC01_OPS) == 0


def test_diamond():
    """x + f(x): both branches stay in the layout."""
    x, value = images((32, 4, 12, 12))
    h = layer(x, weights(4, 4), pool=False, border_mode="half")
    out = conv2d(h + T.nnet.relu(h * 2 - 1), weights(4, 4, name="w2"))
    f = check([x], [out], [value])
    assert conversions(f) == ["FilterActs", "w", "w2", "x"]


def test_value_used_in_both_layouts_is_converted_once():
    x, value = images((32, 4, 12, 12))
    h = layer(x, weights(6, 4), pool=False)
    out = conv2d(h, weights(4, 6, name="w2"))
    rolled = T.concatenate([h[1:], h[:1]], axis=0)  # has no rule, twice
    f = check([x], [out, rolled, h.reshape((-1,))], [value])
    assert len(conversions(f)) == 5  # x, w, w2, out, and h once


def test_scalar_operands_and_arguments_of_lower_rank():
    x, value = images((32, 4, 12, 12))
    s, m = T.scalar("s", dtype="float32"), T.matrix("m", dtype="float32")
    h = layer(x, weights(6, 4), pool=False)
    h = T.switch(h > s, h * s, 0.5 * h) + m  # a plane of the size of an image, for all images and channels
    h = h * T.arange(6, dtype="float32").dimshuffle(0, "x", "x")
    f = check([x, s, m], [conv2d(h, weights(4, 6, name="w2"))], [value, np.float32(2), whole(10, 10)])
    assert "Elemwise" not in " ".join(conversions(f))


def test_argmax_over_channels_and_over_everything():
    x, value = images((32, 4, 12, 12))
    h = layer(x, weights(6, 4), pool=False)
    f = check([x], [T.argmax(h, axis=1), T.argmax(h), T.max(h, axis=(2, 3)), T.argmax(h, axis=3)], [value])
    assert op_count(f, *BC01_OPS) == 0


def test_squeeze_and_global_pooling():
    """(b, c, 1, 1) loses its last axes; means and maxima over pixels, keepdims too."""
    x, value = images((32, 4, 6, 6))
    h = layer(x, weights(6, 4), pool=False)
    last = conv2d(h, weights(5, 6, 4, name="w2"), input_shape=(32, 6, 4, 4), filter_shape=(5, 6, 4, 4))
    squeezed = T.addbroadcast(last, 2, 3).dimshuffle(0, 1)
    f = check([x], [squeezed, h.sum(axis=(2, 3)), (h - h.max(axis=(2, 3), keepdims=True)).sum(axis=0)], [value])
    assert op_count(f, *BC01_OPS) == 0


def by_hand(x, ws):
    """A model written for cuda-convnet: a dimshuffle and a contiguity copy before every layer, a dimshuffle after."""
    for w in ws:
        c01b = gpu_contiguous(x.dimshuffle(1, 2, 3, 0))
        filters = cpu_contiguous(w.dimshuffle(1, 2, 3, 0))
        convolved = FilterActs(partial_sum=1)(c01b, filters)
        pooled = MaxPool(2, 2)(gpu_contiguous(convolved))
        x = T.nnet.relu(pooled.dimshuffle(3, 0, 1, 2))
    return x


def test_hand_written_c01b_ends_like_the_bc01_original():
    x, value = images((32, 4, 22, 22))
    ws = [weights(6, 4), weights(5, 6, name="w2")]
    ours = x
    for w in ws:
        ours = T.nnet.relu(pool_2d(conv2d(ours, w, filter_flip=False), (2, 2), ignore_border=True))
    original = check([x], [ours] + T.grad(ours.sum(), ws), [value])
    written = check([x], [by_hand(x, ws)] + T.grad(by_hand(x, ws).sum(), ws), [value])
    assert len(conversions(written)) == len(conversions(original))
    np.testing.assert_array_equal(written(value)[0], original(value)[0])
    assert op_count(written, CpuContiguous) == 0


def test_conversions_around_what_theano_cannot_lift_them_over():
    """Reductions and joins between the program's own conversions; Theano moves dimshuffles over elementwise ops alone."""
    x, value = images((32, 4, 22, 22))
    h = by_hand(x, [weights(6, 4)])
    centred = h - h.max(axis=(2, 3), keepdims=True)
    out = FilterActs()(gpu_contiguous(centred.dimshuffle(1, 2, 3, 0)), cpu_contiguous(weights(5, 6).dimshuffle(1, 2, 3, 0)))
    f = check([x], [out], [value])
    assert layoutopt.explain(f).record.conversions_before == 5
    assert conversions(f) == ["w", "w", "x"]


def test_second_run_changes_nothing():
    x, value = images((32, 3, 18, 16))
    out, params = network(x, (32, 3, 18, 16))
    f = theano.function([x], [out] + T.grad(out.sum(), params), mode=FLAGGED)
    inputs, outputs = theano.gof.graph.clone(f.maker.fgraph.inputs, f.maker.fgraph.outputs)
    fgraph = theano.gof.FunctionGraph(inputs, outputs, clone=False, features=[ShapeFeature()])
    before = theano.printing.debugprint(fgraph.outputs, file="str")
    LayoutOptimizer().apply(fgraph)
    assert theano.printing.debugprint(fgraph.outputs, file="str") == before


def test_compiling_twice_gives_the_same_graph():
    x, _ = images((32, 3, 18, 16))
    out, params = network(x, (32, 3, 18, 16))
    texts = {theano.printing.debugprint(theano.function([x], [out] + T.grad(out.sum(), params), mode=FLAGGED), file="str")
             for _ in range(2)}
    assert len(texts) == 1


def test_off_by_default_and_by_exclusion():
    x, _ = images()
    out = layer(x, weights(4, 3))
    for mode in (STOCK, FLAGGED.excluding("layoutopt")):
        f = theano.function([x], out, mode=mode)
        assert op_count(f, FilterActs) == 0
        assert "nothing to report" in str(layoutopt.explain(f))


def test_float64_stays_and_says_why():
    x = T.tensor4("x", dtype="float64")
    w = theano.shared(whole(4, 3, 3, 3).astype("float64"))
    f = check([x], [conv2d(x, w)], [whole(8, 3, 9, 9).astype("float64")])
    assert op_count(f, FilterActs) == 0
    assert "dtype is float64" in str(layoutopt.explain(f))


def test_graph_without_convolutions_is_not_touched():
    x = T.matrix("x", dtype="float32")
    f = check([x], [T.dot(x, x.T).sum(axis=0)], [whole(5, 4)])
    assert layoutopt.explain(f).record is None


def test_original_constraints_reject_by_number():
    x, _ = images()
    old = theano.config.layoutopt.constraints
    theano.config.layoutopt.constraints = "cuda_convnet"
    try:
        f = theano.function([x], layer(x, weights(20, 3)), mode=FLAGGED)
    finally:
        theano.config.layoutopt.constraints = old
    assert op_count(f, FilterActs) == 0
    assert "20 filters" in str(layoutopt.explain(f))


def test_no_compiler(monkeypatch):
    """Without g++ the kernels cannot be built; the program runs on Theano's own fall-backs."""
    monkeypatch.setattr(theano.config, "cxx", "")
    x, _ = images()
    f = theano.function([x], layer(x, weights(4, 3)), mode=theano.Mode(linker="py", optimizer="fast_run").including("layoutopt"))
    assert op_count(f, FilterActs) == 0
    assert "no C++ compiler" in str(layoutopt.explain(f))


def test_a_gpu_that_cannot_be_opened_leaves_the_cpu_and_a_word_in_the_report(monkeypatch):
    monkeypatch.setattr(optimizer, "why_not_gpu", lambda: "device is cuda, which Theano could not open")
    x, _ = images()
    f = theano.function([x], layer(x, weights(4, 3)), mode=FLAGGED)
    assert op_count(f, FilterActs) == 1
    assert "device is cuda" in str(layoutopt.explain(f))


def test_report_goes_to_a_file_and_never_stops_the_program(tmp_path, monkeypatch, capsys):
    x, _ = images()
    for target in (tmp_path / "report.txt", tmp_path / "nowhere" / "report.txt"):
        monkeypatch.setattr(theano.config.layoutopt, "report", str(target))
        f = theano.function([x], layer(x, weights(4, 3)), mode=FLAGGED)
        assert op_count(f, FilterActs) == 1
    written, now = (tmp_path / "report.txt").read_text().splitlines(), str(layoutopt.explain(f)).splitlines()
    assert written == [line for line in now if "contiguity copies" not in line]  # counted when the graph is done
    theano.function([x], layer(x, weights(4, 3)), mode=FLAGGED)
    assert capsys.readouterr().err.count("no report in %s: No such file" % target) == 1


def test_copies_and_pickles_compute_the_same():
    x, value = images((32, 3, 12, 12))
    f = theano.function([x], [layer(x, weights(4, 3))], mode=FLAGGED)
    for twin in (f.copy(), pickle.loads(pickle.dumps(f))):
        np.testing.assert_array_equal(twin(value), f(value))
        assert op_count(twin, FilterActs) == 1
    assert str(layoutopt.explain(twin)) == str(layoutopt.explain(f))


def test_explain_wants_a_function():
    with pytest.raises(TypeError, match="int"):
        layoutopt.explain(3)
