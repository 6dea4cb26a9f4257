"""FilterActs, ImageActs and WeightActs as Theano ops: types, shapes, messages, equality, compilation."""
import functools
import itertools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights

from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.epilogue import FilterActsBias
from layoutopt.kernels.reference import conv as reference
from test_conv_ops import (OPS, PLAIN, SMALL, STOCK, case, compiled, grid_of, kernel_args, op_of, operands, run, small)
from tolerance import normal, whole_numbers


@pytest.mark.parametrize("kind, pattern", [(FilterActs, lambda a, b: (b[3], False, False, a[3])),
                                           (ImageActs, lambda a, b: (b[0], False, False, a[3])),
                                           (WeightActs, lambda a, b: (a[0], False, False, b[0]))])
def test_broadcast_patterns(kind, pattern):
    for a, b in itertools.product(itertools.product((False, True), repeat=4), repeat=2):
        first, second = tt.TensorType("float32", a)(), tt.TensorType("float32", b)()
        out = kind(partial_sum=2).make_node(first, second, (3, 3)).outputs
        assert out[0].broadcastable == pattern(a, b)
        assert all(more.broadcastable == (False,) + pattern(a, b) for more in out[1:])


@pytest.mark.parametrize("c", [small(name) for name in ("pads and strides", "half", "full", "hanging windows")])
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_shapes_are_known_without_computing(c, ceil_mode, rng):
    c = c._replace(ceil_mode=ceil_mode)
    x, w, h = tt.ftensor4s(3)
    values = operands(c, lambda *shape: whole_numbers(rng, shape))
    modules = grid_of(c)[0] * grid_of(c)[1]
    unit = op_of(ImageActs, c._replace(stride=1))
    outputs = [op_of(FilterActs, c)(x, w), op_of(FilterActs, c)(x, w, h.shape[1:3]),
               op_of(ImageActs, c)(h, w, x.shape[1:3]), unit(h, w)]
    outputs += op_of(WeightActs, c)(x, h, w.shape[1:3]) + op_of(WeightActs, c, modules)(x, h, w.shape[1:3])
    shapes = theano.function([x, w, h], [out.shape for out in outputs])
    assert not any(isinstance(node.op, OPS) for node in shapes.maker.fgraph.toposort())
    unit_image = [count + size - 1 - sum(pad)
                  for count, size, pad in zip(grid_of(c), c.filter_shape, unit.pads(c.filter_shape))]
    x_shape, w_shape, h_shape = (value.shape for value in values)
    expected = [h_shape, h_shape, x_shape, (c.channels, *unit_image, c.batch), w_shape, w_shape, (1,) + w_shape]
    assert [tuple(shape) for shape in shapes(*values)] == expected
    assert run(op_of(FilterActs, c), *values[:2]).shape == h_shape
    assert run(unit, values[2], values[1]).shape == expected[3]


@pytest.mark.parametrize("filter_shape", [(0, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("border", ["valid", "half", "full", 1, ((1, 2), (0, 3))])
def test_filters_without_taps_give_zeros_as_theanos_do(border, stride, filter_shape):
    """Sums of nothing, and as many of them as Theano has it; of such filters there is no gradient."""
    images, filters = np.ones((2, 3, 5, 6), "f"), np.ones((4, 3) + filter_shape, "f")
    turned = [np.moveaxis(x, 0, -1) for x in (images, filters)]
    parameters = dict(pad=border, stride=stride, flip=True, ceil_mode=False)
    forward, backward, weights = (op(**parameters) for op in OPS)
    expected = theanos(AbstractConv2d, border, stride, 2)(images, filters)
    grid = expected.shape[2:]
    hid = np.ones_like(expected)
    gradient = theanos(AbstractConv2d_gradInputs, border, stride, 3)(filters, hid, images.shape[2:])
    assert not expected.any() and not gradient.any() and gradient.shape == images.shape
    for shape in ((), (grid,)):
        np.testing.assert_array_equal(run(forward, *turned, *shape), np.moveaxis(expected, 0, -1))
    hid = np.moveaxis(hid, 0, -1)
    np.testing.assert_array_equal(run(backward, hid, turned[1], images.shape[2:]), np.moveaxis(gradient, 0, -1))
    results = [[None]]
    forward.perform(None, turned, results)
    np.testing.assert_array_equal(results[0][0], np.moveaxis(expected, 0, -1))
    backward.perform(None, [hid, turned[1], np.array(images.shape[2:])], results)
    np.testing.assert_array_equal(results[0][0], np.moveaxis(gradient, 0, -1))
    for refusing, pair in ((theanos(AbstractConv2d_gradWeights, border, stride, 3), (images, np.ones_like(expected))),
                               (functools.partial(run, weights), (turned[0], hid))):
        with pytest.raises(ValueError):
            refusing(*pair, filter_shape)


@functools.lru_cache(maxsize=None)
def theanos(op_class, border, stride, inputs):
    """A convolution, or a gradient of one, by stock Theano."""
    variables = [tt.ftensor4(), tt.ftensor4(), tt.lvector()][:inputs]
    return theano.function(variables, op_class(border_mode=border, subsample=stride)(*variables), mode=STOCK)


def test_filters_without_taps_in_groups_and_with_a_bias():
    """What is added to the sums of nothing is the result; with more outputs than filters have room for."""
    images, filters = np.ones((4, 5, 5, 17), "f"), np.ones((2, 0, 3, 6), "f")
    x, w, b = tt.ftensor4(), tt.ftensor4(), tt.fvector()
    op = FilterActs("half", groups=2)
    assert run(op, images, filters).shape == (6, 6, 5, 17) and not run(op, images, filters).any()
    biased = theano.function([x, w, b], FilterActsBias(op, "tanh", True)(x, w, b), mode=PLAIN)(images, filters, np.arange(6, dtype="f"))
    for result, function in zip(biased, (np.tanh, lambda v: v)):
        expected = np.broadcast_to(function(np.arange(6, dtype="f"))[:, None, None, None], (6, 6, 5, 17))
        np.testing.assert_allclose(result, expected, rtol=3e-7)
    hid = np.ones((6, 6, 5, 17), "f")
    gradient = run(ImageActs("half", groups=2), hid, filters, (5, 5))
    assert gradient.shape == images.shape and not gradient.any()


# (op, shapes of the two tensors, output_shape, the message)
MALFORMED = {
    "channels": (FilterActs(), (3, 5, 5, 2), (4, 3, 3, 2), None,
                 "FilterActs: channels differ: images have 3, filters have 4"),
    "filters": (ImageActs(), (3, 5, 5, 2), (4, 3, 3, 2), None,
                "ImageActs: filters differ: output gradients have 3, filters have 2"),
    "batches": (WeightActs(), (3, 5, 5, 2), (4, 3, 3, 3), (3, 3),
                "WeightActs: batches differ: images have 2, output gradients have 3"),
    "too small": (FilterActs(1), (3, 1, 5, 2), (3, 4, 3, 2), None,
                  "FilterActs: images of 1 x 5 give 0 x 5 outputs with filters of 4 x 3, leading pad (1, 1), "
                  "stride (1, 1)"),
    "too small for the floor": (FilterActs(0, None, 2, ceil_mode=False), (3, 2, 5, 2), (3, 3, 3, 2), None,
                                "FilterActs: images of 2 x 5 give 0 x 2 outputs with filters of 3 x 3, leading pad "
                                "(0, 0), stride (2, 2)"),
    "no filters wanted": (WeightActs(), (3, 5, 5, 2), (4, 6, 6, 2), (0, 0), "WeightActs: filters of 0 x 0"),
    "grid below the floor": (FilterActs(((1, 2), (0, 0))), (3, 5, 5, 2), (3, 3, 3, 2), (5, 3),
                             "FilterActs: 5 output rows do not fit images of 5, filters of 3, pad (1, 2), stride 1: "
                             "at least 6"),
    "grid beside the floor": (FilterActs(ceil_mode=False), (3, 5, 5, 2), (3, 3, 3, 2), (3, 4),
                              "FilterActs: 4 output columns do not fit images of 5, filters of 3, pad (0, 0), "
                              "stride 1: expected 3"),
    "image too large": (ImageActs(0, None, 2), (2, 2, 2, 2), (3, 3, 3, 2), (5, 7),
                        "ImageActs: 2 output columns do not fit images of 7, filters of 3, pad (0, 0), stride 2: "
                        "at least 3"),
    "image too small": (ImageActs("half", ceil_mode=False), (2, 5, 5, 2), (3, 3, 3, 2), (5, 4),
                        "ImageActs: 5 output columns do not fit images of 4, filters of 3, pad (1, 1), stride 1: "
                        "expected 4"),
    "negative image": (ImageActs(4), (2, 1, 7, 2), (3, 3, 3, 2), None, "ImageActs: images would be -5 x 1"),
    "wrong filter": (WeightActs(ceil_mode=False), (3, 5, 5, 2), (4, 3, 3, 2), (2, 3),
                     "WeightActs: 3 output rows do not fit images of 5, filters of 2, pad (0, 0), stride 1: "
                     "expected 4"),
    "partial_sum": (WeightActs(partial_sum=4), (3, 5, 5, 2), (4, 3, 3, 2), (3, 3),
                    "WeightActs: partial_sum 4 does not divide the 3 x 3 = 9 modules"),
    "three sizes": (FilterActs(), (3, 5, 5, 2), (3, 3, 3, 2), (3, 3, 3),
                    "FilterActs: output_shape must be 2 integers, got 1 axes and 3 elements"),
    "negative size": (WeightActs(), (3, 5, 5, 2), (4, 3, 3, 2), (3, -3),
                      "WeightActs: output_shape has a negative size: -3"),
    "huge size": (ImageActs(), (2, 3, 3, 2), (3, 3, 3, 2), (2 ** 40, 5),
                  "ImageActs: output_shape is too large: 1099511627776"),
}


def refused_in_the_same_words(op, first, second, shape, message):
    """Whether the compiled op and its reference both raise this ValueError for operands, and perhaps sizes, of these shapes."""
    values = [np.ones(first, "f"), np.ones(second, "f")] + ([] if shape is None else [np.array(shape, "int64")])
    with pytest.raises(ValueError) as compiled_error:
        run(op, *values)
    with pytest.raises(ValueError) as reference_error:
        op.perform(None, values, [[None], [None]])
    return str(compiled_error.value).split("\n")[0] == message == str(reference_error.value)


@pytest.mark.parametrize("op, first, second, shape, message", list(MALFORMED.values()), ids=list(MALFORMED))
def test_malformed_sizes_are_refused_in_the_same_words(op, first, second, shape, message):
    assert refused_in_the_same_words(op, first, second, shape, message)


@pytest.mark.parametrize("c", [small(name) for name in SMALL])
def test_perform_is_the_reference(c, rng):
    images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    for kind, first, second, shape in ((FilterActs, images, filters, grid_of(c)), (ImageActs, hid, filters, c.image),
                                       (WeightActs, images, hid, c.filter_shape)):
        storage = [[None], [None]]
        op_of(kind, c, 1).perform(None, [first, second, np.array(shape)], storage)
        results = compiled(op_of(kind, c, 1), True)(first, second, shape)
        for (value,), right in zip(storage, results if kind is WeightActs else [results]):
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, right)


@pytest.mark.parametrize("kind", OPS)
def test_wrong_types_are_refused(kind):
    good, shape = tt.ftensor4(), tt.lvector()
    for bad in (tt.dtensor4(), tt.ftensor3(), tt.itensor4(), np.ones((2, 2, 2, 2))):
        for inputs in ((bad, good, shape), (good, bad, shape)):
            with pytest.raises(TypeError, match=kind.__name__ + ".*float32 tensor of 4 axes"):
                kind()(*inputs)
    for bad in (tt.fvector(), tt.lmatrix(), tt.lscalar(), [1.5, 2.0]):
        with pytest.raises(TypeError, match="output_shape must be an integer vector"):
            kind()(good, good, bad)
    for dtype in ("int8", "uint8", "int32", "uint32"):
        assert kind().make_node(good, good, tt.vector(dtype=dtype)).inputs[2].dtype == "int64"


def test_sizes_that_only_the_caller_knows():
    with pytest.raises(ValueError, match=r"ImageActs: output_shape is needed with stride \(1, 2\)"):
        ImageActs(stride=(1, 2))(tt.ftensor4(), tt.ftensor4())
    for nothing in ((), (None,)):
        with pytest.raises(TypeError):
            WeightActs()(tt.ftensor4(), tt.ftensor4(), *nothing)


@pytest.mark.parametrize("error, parameters", [
    (ValueError, dict(pad=-1)), (ValueError, dict(pad=((0, -1), (0, 0)))), (ValueError, dict(pad="same")),
    (ValueError, dict(stride=0)), (ValueError, dict(stride=(1, -1))), (ValueError, dict(pad=2 ** 31)),
    (ValueError, dict(stride=2 ** 40)), (TypeError, dict(pad=1.0)), (TypeError, dict(pad=(1, 2, 3))),
    (TypeError, dict(pad=((1, 2, 3), 1))), (TypeError, dict(pad=None)), (TypeError, dict(pad=True)),
    (TypeError, dict(stride=1.5)), (TypeError, dict(stride="1")), (TypeError, dict(stride=(1, 2, 3))),
    (TypeError, dict(partial_sum=1.0)), (TypeError, dict(partial_sum="all")), (TypeError, dict(partial_sum=True))])
@pytest.mark.parametrize("kind", OPS)
def test_wrong_parameters_are_refused(kind, error, parameters):
    with pytest.raises(error, match=next(iter(parameters))):
        kind(**parameters)


def test_pads_have_one_normal_form():
    for value in (2, (2, 2), [2, 2], ((2, 2), (2, 2)), (2, (2, 2)), np.int64(2), np.array(2)[()]):
        assert FilterActs(value).pad == ((2, 2), (2, 2))
    assert FilterActs("valid") == FilterActs(0) == FilterActs()
    assert FilterActs((1, (2, 3))).pad == ((1, 1), (2, 3))
    assert FilterActs("half").pads((5, 4)) == ((2, 2), (2, 2))
    assert FilterActs("full").pads((5, 4)) == ((4, 4), (3, 3))


def test_original_order_of_arguments_and_names():
    op = WeightActs(2, 5, 3)
    assert (op.pad, op.partial_sum, op.stride) == (((2, 2), (2, 2)), 5, (3, 3))
    assert str(op) == "WeightActs{pad=2, stride=3, partial_sum=5}"
    assert str(FilterActs(2, 5, 1, flip=True)) == "FilterActs{pad=2, stride=1, flip}"
    assert str(ImageActs(((1, 1), (2, 3)), None, (1, 2), ceil_mode=False)) == (
        "ImageActs{pad=(1, (2, 3)), stride=(1, 2), floor}")
    assert str(FilterActs("half")) == "FilterActs{pad=half, stride=1}"
    for none in (None, 0, -3):
        assert WeightActs(partial_sum=none).partial_sum is None


def test_equality():
    different = [dict(), dict(pad=1), dict(stride=2), dict(flip=True), dict(ceil_mode=False), dict(pad="half")]
    for kind in OPS:
        assert len({kind(**parameters) for parameters in different + different}) == len(different)
    # partial_sum changes what WeightActs returns, and nothing of the others.
    assert FilterActs(partial_sum=3) == FilterActs() and hash(FilterActs(partial_sum=3)) == hash(FilterActs())
    assert ImageActs(partial_sum=3) == ImageActs() and WeightActs(partial_sum=3) != WeightActs()
    assert len({kind() for kind in OPS}) == 3


def test_partial_sum_reaches_the_weight_gradient():
    x, w = tt.ftensor4(), tt.ftensor4()
    gradient = tt.grad(FilterActs(1, 7, 2, True)(x, w).sum(), w)
    assert gradient.owner.op == WeightActs(1, 7, 2, True)


def test_pickling(rng):
    for kind in OPS:
        for op in (kind(), kind(((1, 2), (3, 0)), 4, (2, 1), True, False), kind("full")):
            copy = pickle.loads(pickle.dumps(op))
            assert copy == op and str(copy) == str(op) and copy.partial_sum == op.partial_sum
    images, filters = normal(rng, 3, 5, 5, 4), normal(rng, 3, 3, 3, 6)
    function = compiled(FilterActs(1), False)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(function))(images, filters), function(images, filters))


def test_flops_in_theanos_convention():
    images, filters, hid = (3, 9, 8, 10), (3, 5, 4, 6), (6, 5, 5, 10)
    expected = 2 * 3 * 6 * 5 * 4 * 5 * 5 * 10
    assert FilterActs().flops([images, filters], [hid]) == expected
    assert FilterActs().flops([images, filters, (2,)], [hid]) == expected
    assert ImageActs().flops([hid, filters, (2,)], [images]) == expected
    assert WeightActs().flops([images, hid, (2,)], [filters]) == expected
    assert AbstractConv2d().flops([(10, 3, 9, 8), (6, 3, 5, 4)], [(10, 6, 5, 5)]) == expected


@pytest.mark.parametrize("kind", OPS)
def test_one_module_for_all_parameters(kind):
    def module(op):
        a, b, shape = tt.ftensor4(), tt.ftensor4(), tt.lvector()
        graph = theano.gof.FunctionGraph([a, b, shape], op.make_node(a, b, shape).outputs, clone=False)
        linker = theano.gof.CLinker().accept(graph)
        key = linker.cmodule_key()
        assert key[0], "a module without a version is compiled anew in every process"
        return theano.gof.cmodule.get_module_hash(linker.get_src_code(), key)

    assert len({module(kind(pad, None, stride, flip, ceil_mode)) for pad, stride, flip, ceil_mode in itertools.product(
        (0, 3, "half", ((1, 2), (3, 4))), (1, (2, 3)), (True, False), (True, False))}) == 1
    assert len({module(kind(partial_sum=chunk)) for chunk in (1, 2, 50)}) == 1


def test_theanos_debug_mode_finds_nothing(rng):
    c = case(pad=1, stride=2, image=(7, 7), filter_shape=(3, 3))
    x, w = tt.ftensor4(), tt.ftensor4()
    out = op_of(FilterActs, c, 4)(x, w)
    mode = theano.compile.debugmode.DebugMode(check_isfinite=False, optimizer="fast_compile")
    function = theano.function([x, w], [out] + tt.grad((out ** 2).sum(), [x, w]), mode=mode)
    images, filters, _ = operands(c, lambda *shape: whole_numbers(rng, shape))
    np.testing.assert_array_equal(function(images, filters)[0],
                                  reference.filter_acts(images, filters, grid_of(c), *kernel_args(c)))


def test_everything_in_one_c_function(rng):
    """Theano's plain C linker puts all ops of a graph into one C++ function: names must not collide."""
    c = case(pad=1, stride=2, image=(7, 7), filter_shape=(3, 3))
    x, w = tt.ftensor4(), tt.ftensor4()
    out = op_of(FilterActs, c, 4)(x, w, (4, 4))
    mode = theano.compile.mode.Mode(linker="c", optimizer=None)
    outputs = [out, op_of(ImageActs, c)(out, w, (7, 7))] + op_of(WeightActs, c, 4)(x, out, (3, 3))
    results = theano.function([x, w], outputs, mode=mode)(*operands(c, lambda *shape: whole_numbers(rng, shape))[:2])
    assert [result.shape for result in results] == [(4, 4, 4, 5), (3, 7, 7, 5), (3, 3, 3, 4), (4, 3, 3, 3, 4)]
