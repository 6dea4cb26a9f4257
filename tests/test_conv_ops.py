"""FilterActs, ImageActs and WeightActs against their definition, against Theano's convolutions, and as Theano ops."""
import collections
import functools
import itertools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as tt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d, correlate2d
from theano.gradient import NullTypeGradError
from theano.tensor.nnet.abstract_conv import (AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights,
                                              conv2d)

from layoutopt.kernels import base
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs, as_pad
from layoutopt.kernels.epilogue import FilterActsBias
from layoutopt.kernels.reference import conv as reference
from tolerance import LARGEST_EXACT, assert_bilinear, normal, whole_numbers

OPS = (FilterActs, ImageActs, WeightActs)
# Graphs of a single op need no optimizer.
PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)
# Theano as it comes: enough of it to turn abstract convolutions into CorrMM.
STOCK = theano.compile.mode.Mode(linker="cvm", optimizer="fast_compile")

# ---------------------------------------------------------------------------------------------------------------------
# One convolution: sizes, parameters, and its three values by the ops and by the reference.

_Case = collections.namedtuple("Case", "channels image batch filters filter_shape pad stride flip ceil_mode extra")


def case(channels=3, image=(7, 6), batch=5, filters=4, filter_shape=(3, 2), pad=0, stride=1, flip=False, ceil_mode=True,
         extra=(0, 0)):
    """A convolution; `extra`: outputs beyond those the geometry gives by itself (ceil_mode only)."""
    return _Case(channels, image, batch, filters, filter_shape, as_pad(pad), stride, flip, ceil_mode, extra)


def op_of(kind, c, partial_sum=None):
    return kind(c.pad, partial_sum, c.stride, c.flip, c.ceil_mode)


def grid_of(c):
    grid = op_of(FilterActs, c).output_grid(c.image, c.filter_shape)
    return tuple(count + more for count, more in zip(grid, c.extra))


def operands(c, draw):
    """Images, filters and output gradients, by `draw(*shape)`."""
    return (draw(c.channels, *c.image, c.batch), draw(c.channels, *c.filter_shape, c.filters),
            draw(c.filters, *grid_of(c), c.batch))


def kernel_args(c):
    (top, _), (left, _) = op_of(FilterActs, c).pads(c.filter_shape)
    stride = c.stride if isinstance(c.stride, tuple) else (c.stride, c.stride)
    return (top, left), stride, c.flip


@functools.lru_cache(maxsize=None)
def compiled(op, shaped):
    """The op alone as a function (first, second[, output_shape])."""
    first, second, shape = tt.ftensor4(), tt.ftensor4(), tt.lvector()
    inputs = [first, second] + [shape] * shaped
    return theano.function(inputs, op(*inputs), mode=PLAIN)


def run(op, *values):
    return compiled(op, len(values) == 3)(*values)


def three_values(c, images, filters, hid):
    """(value by the op, definition as a function of two operands, these operands) for the op and its two adjoints."""
    args, grid = kernel_args(c), grid_of(c)
    return [
        (run(op_of(FilterActs, c), images, filters, grid),
         lambda x, w: reference.filter_acts(x, w, grid, *args), images, filters),
        (run(op_of(ImageActs, c), hid, filters, c.image),
         lambda h, w: reference.image_acts(h, w, c.image, *args), hid, filters),
        (run(op_of(WeightActs, c), images, hid, c.filter_shape)[0],
         lambda x, h: reference.weight_acts(x, h, c.filter_shape, *args), images, hid)]


def check_exactly(c, draw):
    for value, definition, first, second in three_values(c, *operands(c, draw)):
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, definition(first, second))


@st.composite
def cases(draw):
    def pick(*values):
        return draw(st.sampled_from(values))

    filter_shape = pick(1, 2, 3, 5), pick(1, 2, 3, 4)
    pad = pick(0, 1, "half", "full", (0, 3), ((0, 2), (3, 1)), ((5, 0), (0, 0)))
    stride = pick(1, 1, 2, 3, (1, 2), (3, 1))
    ceil_mode = draw(st.booleans())
    c = case(pick(0, 1, 2, 3, 4, 5, 8, 17), (0, 0), pick(0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 100, 127, 130),
             pick(0, 1, 2, 3, 5, 8, 16, 20, 50), filter_shape, pad, stride, draw(st.booleans()), ceil_mode,
             (pick(0, 0, 1), pick(0, 0, 2)) if ceil_mode else (0, 0))
    # The smallest image that still has an output, and some pixels more.
    pads = [sum(pair) for pair in op_of(FilterActs, c).pads(filter_shape)]
    least = [max(1, size - both) for size, both in zip(filter_shape, pads)]
    return c._replace(image=tuple(size + pick(0, 1, 2, 3, 6) for size in least))


# ---------------------------------------------------------------------------------------------------------------------
# The reference is what it says.

SMALL = {
    "plain": case(),
    "flip": case(flip=True),
    "pads and strides": case(pad=((1, 2), (0, 3)), stride=(2, 3)),
    "flip, pads and strides": case(pad=((2, 0), (1, 1)), stride=(3, 1), flip=True),
    "half": case(filter_shape=(4, 3), pad="half"),
    "full": case(filter_shape=(3, 4), pad="full", stride=2),
    "hanging windows": case(image=(5, 8), filter_shape=(3, 3), stride=(3, 4)),
    "outputs beyond the image": case(image=(2, 3), extra=(4, 1), stride=2),
}


def small(name):
    return pytest.param(SMALL[name], id=name)


@pytest.mark.parametrize("c", [small(name) for name in SMALL])
def test_reference_is_the_sum_in_its_docstring(c, rng):
    images, filters, hid = operands(c, lambda *shape: rng.standard_normal(shape))
    (top, left), (stride_y, stride_x), flip = kernel_args(c)
    if flip:
        filters = filters[:, ::-1, ::-1]
    wide = np.zeros((c.channels, 40, 40, c.batch))  # the image in a frame of zeros that no window leaves
    wide[:, top:top + c.image[0], left:left + c.image[1]] = images
    out, d_wide, d_filters = np.zeros(hid.shape), np.zeros(wide.shape), np.zeros(filters.shape)
    for k, i, j in np.ndindex(hid.shape[:3]):
        window = np.s_[:, i * stride_y:i * stride_y + c.filter_shape[0], j * stride_x:j * stride_x + c.filter_shape[1]]
        out[k, i, j] = np.einsum("cuv,cuvb->b", filters[..., k], wide[window])
        d_wide[window] += filters[..., k, None] * hid[k, i, j]
        d_filters[..., k] += wide[window] @ hid[k, i, j]
    d_images = d_wide[:, top:top + c.image[0], left:left + c.image[1]]
    if flip:
        filters, d_filters = filters[:, ::-1, ::-1], d_filters[:, ::-1, ::-1]
    args = kernel_args(c)
    np.testing.assert_allclose(reference.filter_acts(images, filters, grid_of(c), *args), out, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(reference.image_acts(hid, filters, c.image, *args), d_images, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(reference.weight_acts(images, hid, c.filter_shape, *args), d_filters, rtol=1e-12,
                               atol=1e-12)


@pytest.mark.parametrize("c", [small(name) for name in SMALL])
def test_reference_gradients_by_finite_differences(c, rng):
    c = c._replace(batch=2, channels=2, filters=2)
    images, filters, hid = operands(c, lambda *shape: rng.standard_normal(shape))

    def cost(x, w):
        return (reference.filter_acts(x, w, grid_of(c), *kernel_args(c)) * hid).sum()

    def differences(function, at, step=1e-4):
        slopes = np.zeros_like(at)
        for index in np.ndindex(at.shape):
            bump = np.zeros_like(at)
            bump[index] = step
            slopes[index] = (function(at + bump) - function(at - bump)) / (2 * step)
        return slopes

    d_images = reference.image_acts(hid, filters, c.image, *kernel_args(c))
    d_filters = reference.weight_acts(images, hid, c.filter_shape, *kernel_args(c))
    # The cost is linear in either: the differences have no truncation error, only 1e-16 * |cost| / step of rounding.
    np.testing.assert_allclose(differences(lambda x: cost(x, filters), images), d_images, atol=1e-9)
    np.testing.assert_allclose(differences(lambda w: cost(images, w), filters), d_filters, atol=1e-9)


@pytest.mark.parametrize("flip, scipys", [(False, correlate2d), (True, convolve2d)])
@pytest.mark.parametrize("pad, mode", [("valid", "valid"), ("full", "full")])
def test_scipy_agrees(flip, scipys, pad, mode, rng):
    images, filters = normal(rng, 3, 9, 8, 4), normal(rng, 3, 4, 3, 2)

    def by_scipy(x, w):
        return np.array([[sum(scipys(x[c, :, :, b], w[c, :, :, k], mode) for c in range(3)) for b in range(4)]
                         for k in range(2)]).transpose(0, 2, 3, 1)

    assert_bilinear(run(FilterActs(pad, flip=flip), images, filters), by_scipy, images, filters)


# ---------------------------------------------------------------------------------------------------------------------
# The ops are the reference.

@settings(max_examples=200)
@given(cases(), st.integers(0, 2 ** 31 - 1))
def test_any_shape_exactly(c, seed):
    random = np.random.RandomState(seed)
    check_exactly(c, lambda *shape: whole_numbers(random, shape))


NAMED = dict(SMALL, **{
    "one pixel": case(image=(1, 1), filter_shape=(1, 1)),
    "one of everything": case(1, (1, 1), 1, 1, (1, 1)),
    "batch 1": case(batch=1, filters=16),
    "batch 15": case(batch=15, filters=20),
    "batch 127": case(batch=127, filters=50, channels=5),
    "batch 0": case(batch=0),
    "no channels": case(channels=0),
    "no filters": case(filters=0),
    "one filter, many images": case(filters=1, batch=130, channels=1),
    "stride above the filter": case(image=(11, 13), filter_shape=(2, 1), stride=(4, 3)),
    "pad above the filter": case(image=(3, 4), filter_shape=(2, 3), pad=((5, 4), (6, 7)), stride=2),
    "filter larger than the image": case(image=(2, 3), filter_shape=(6, 5), pad=3),
    "filter hangs over a smaller image": case(image=(2, 2), filter_shape=(3, 3), stride=2),
    "pixels never read": case(image=(11, 11), filter_shape=(2, 2), stride=3, ceil_mode=False),
    "even half": case(filter_shape=(4, 2), pad="half", ceil_mode=False),
    "flip, even half, stride": case(image=(9, 9), filter_shape=(4, 4), pad="half", stride=2, flip=True),
    "AlexNet's first": case(3, (35, 35), 17, 24, (11, 11), 2, 4),
    "many channels": case(40, (6, 5), 34, 33, (3, 3), 1),
    "grid given, all of it outside": case(image=(2, 2), filter_shape=(2, 2), stride=5, extra=(2, 2)),
})


@pytest.mark.parametrize("c", [pytest.param(NAMED[name], id=name) for name in NAMED])
def test_named_shape_exactly(c, rng):
    check_exactly(c, lambda *shape: whole_numbers(rng, shape))


@pytest.mark.parametrize("c", [
    case(16, (12, 12), 40, 20, (5, 5), 2), case(3, (20, 18), 130, 17, (7, 5), 3, 2, flip=True),
    case(64, (7, 7), 33, 48, (3, 3), 1), case(1, (28, 28), 100, 32, (5, 5)),
    case(50, (4, 4), 128, 10, (4, 4), ceil_mode=False)])
def test_rounding_within_its_bound(c, rng):
    for value, definition, first, second in three_values(c, *operands(c, lambda *shape: normal(rng, *shape))):
        assert_bilinear(value, definition, first, second)


@pytest.mark.parametrize("simd, openmp", [("plain", True), ("avx2", True), ("auto", False)])
def test_other_builds_exactly(simd, openmp, rng, monkeypatch):
    monkeypatch.setitem(base._settings, "simd", simd)
    for c in NAMED.values():
        images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
        args = kernel_args(c)
        expected = [reference.filter_acts(images, filters, grid_of(c), *args),
                    reference.image_acts(hid, filters, c.image, *args),
                    reference.weight_acts(images, hid, c.filter_shape, *args)]
        calls = [(images, filters, grid_of(c)), (hid, filters, c.image), (images, hid, c.filter_shape)]
        variables = [tt.ftensor4(), tt.ftensor4(), tt.lvector()]
        for kind, values, right in zip(OPS, calls, expected):
            op = kind(c.pad, None, c.stride, c.flip, c.ceil_mode, openmp=openmp)
            result = theano.function(variables, op(*variables, return_list=True)[0], mode=PLAIN)(*values)
            np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("c", [small(name) for name in SMALL])
def test_nan_and_infinity_go_where_the_definition_sends_them(c, rng):
    def draw(*shape):
        array = whole_numbers(rng, shape)
        for special in (np.nan, np.inf, -np.inf):
            array.flat[rng.choice(array.size, 2, replace=False)] = special
        return array

    c = c._replace(batch=19, filters=9)
    images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    special = operands(c, draw)
    with np.errstate(invalid="ignore"):
        # Special values in one operand at a time, then everywhere.
        for chosen in ((special[0], filters, hid), (images, special[1], hid), (images, filters, special[2]), special):
            for value, definition, first, second in three_values(c, *chosen):
                np.testing.assert_array_equal(value, definition(first, second))


def test_operands_without_contiguity(rng):
    c = case(pad=1, stride=2)
    images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    backwards, gaps = (lambda x: x[:, ::-1].copy()[:, ::-1]), (lambda x: np.repeat(x, 2, axis=3)[..., ::2])
    for first, second in itertools.product((np.asfortranarray, backwards, gaps), repeat=2):
        assert not first(images).flags.c_contiguous
        np.testing.assert_array_equal(run(op_of(FilterActs, c), first(images), second(filters)),
                                      run(op_of(FilterActs, c), images, filters))
        np.testing.assert_array_equal(run(op_of(ImageActs, c), first(hid), second(filters), c.image),
                                      run(op_of(ImageActs, c), hid, filters, c.image))
        np.testing.assert_array_equal(run(op_of(WeightActs, c), first(images), second(hid), c.filter_shape)[0],
                                      run(op_of(WeightActs, c), images, hid, c.filter_shape)[0])


def test_inputs_are_left_alone_and_runs_repeat(rng):
    c = case(5, (9, 9), 37, 21, (3, 3), 1)
    values = operands(c, lambda *shape: normal(rng, *shape))
    copies = [value.copy() for value in values]
    first, second = three_values(c, *values), three_values(c, *values)
    for (a, *_), (b, *_) in zip(first, second):
        np.testing.assert_array_equal(a, b)
    for value, copy in zip(values, copies):
        np.testing.assert_array_equal(value, copy)


@pytest.mark.parametrize("c, partial_sum", [
    (c, chunk) for c in (case(image=(6, 5)), case(image=(11, 7), pad=(0, 1), stride=(3, 2), flip=True, batch=33))
    for chunk in range(1, 21) if np.prod(grid_of(c)) % chunk == 0])
def test_partial_sums(c, partial_sum, rng):
    args = kernel_args(c)
    images, _, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    total, partials = run(op_of(WeightActs, c, partial_sum), images, hid, c.filter_shape)
    np.testing.assert_array_equal(
        partials, reference.weight_acts_partials(images, hid, c.filter_shape, *args, partial_sum))
    np.testing.assert_array_equal(total, reference.weight_acts(images, hid, c.filter_shape, *args))
    images, _, hid = operands(c, lambda *shape: normal(rng, *shape))
    total, partials = run(op_of(WeightActs, c, partial_sum), images, hid, c.filter_shape)
    assert_bilinear(total, lambda x, h: reference.weight_acts(x, h, c.filter_shape, *args), images, hid)
    assert_bilinear(partials, lambda x, h: reference.weight_acts_partials(x, h, c.filter_shape, *args, partial_sum),
                    images, hid)


@settings(max_examples=60)
@given(cases(), st.integers(1, 30), st.integers(0, 2 ** 31 - 1))
def test_partial_sums_of_any_shape_exactly(c, about, seed):
    modules = int(np.prod(grid_of(c)))
    chunk = max(size for size in range(1, about + 1) if modules % size == 0)
    random = np.random.RandomState(seed)
    images, _, hid = operands(c, lambda *shape: whole_numbers(random, shape))
    partials = run(op_of(WeightActs, c, chunk), images, hid, c.filter_shape)[1]
    np.testing.assert_array_equal(
        partials, reference.weight_acts_partials(images, hid, c.filter_shape, *kernel_args(c), chunk))


def test_partial_sums_of_nothing():
    op = WeightActs(partial_sum=2)
    total, partials = run(op, np.ones((3, 4, 4, 0), "f"), np.ones((5, 2, 2, 0), "f"), (3, 3))
    assert partials.shape == (2, 3, 3, 3, 5) and not partials.any() and not total.any()


# ---------------------------------------------------------------------------------------------------------------------
# In the floor geometry they are Theano's convolutions.

BORDERS = ("valid", "half", "full", 1, (2, 0), (1, 3), ((1, 2), (0, 3)), ((0, 1), (4, 0)), (1, (2, 0)))
CONFIGURATIONS = [(BORDERS[i % 9], ((1, 1), (2, 2), (3, 3), (1, 2), (3, 2))[i % 5], bool(i % 2)) for i in range(30)]


def to_c01b(x):
    return x.transpose(1, 2, 3, 0)


@pytest.mark.parametrize("border, subsample, flip", CONFIGURATIONS)
def test_theanos_convolution_and_its_gradients(border, subsample, flip, rng):
    """Equal on whole numbers: stock Theano's graph of conv2d and its two gradient ops against the three ops."""
    images, filters, hid = tt.ftensor4(), tt.ftensor4(), tt.ftensor4()
    parameters = dict(border_mode=border, subsample=subsample, filter_flip=flip)
    stock = [AbstractConv2d(**parameters)(images, filters),
             AbstractConv2d_gradInputs(**parameters)(filters, hid, images.shape[2:]),
             AbstractConv2d_gradWeights(**parameters)(images, hid, filters.shape[2:])]
    by_theano = theano.function([images, filters, hid], stock, mode=STOCK, on_unused_input="ignore")
    for image, filter_shape in (((9, 9), (3, 3)), ((8, 10), (4, 2)), ((7, 11), (1, 5))):
        c = case(3, image, 6, 5, filter_shape, border, subsample, flip, ceil_mode=False)
        x, w, h = [whole_numbers(rng, shape) for shape in
                   ((6, 3) + image, (5, 3) + filter_shape, (6, 5) + grid_of(c))]
        values = three_values(c, to_c01b(x), to_c01b(w), to_c01b(h))
        for (value, *_), right in zip(values, by_theano(x, w, h)):
            np.testing.assert_array_equal(value, to_c01b(right))


@pytest.mark.parametrize("border, subsample, flip", [("half", (2, 1), True), (((1, 0), (0, 2)), (2, 3), False)])
def test_second_derivatives_are_theanos(border, subsample, flip, rng):
    """grad of grad, through all three ops' own gradients: all polynomials of whole numbers, so equal."""
    x, w, dx, dw = tt.ftensor4s(4)

    def derivatives(convolution):
        first = tt.grad((convolution ** 2).sum(), [x, w])
        return first + tt.grad((first[0] * dx).sum() + (first[1] * dw).sum(), [x, w])

    swap, back = (1, 2, 3, 0), (3, 0, 1, 2)
    ours = FilterActs(border, None, subsample, flip, ceil_mode=False)(x.dimshuffle(*swap), w.dimshuffle(*swap))
    stock = conv2d(x, w, border_mode=border, subsample=subsample, filter_flip=flip)
    values = [whole_numbers(rng, shape, 1) for shape in 2 * ((2, 2, 6, 7), (3, 2, 3, 2))]
    results = [theano.function([x, w, dx, dw], derivatives(y), mode=STOCK)(*values)
               for y in (ours.dimshuffle(*back), stock)]
    for a, b in zip(*results):
        assert abs(b).max() < LARGEST_EXACT and b.any()
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives in the ceiling geometry, with a grid that the op would not have chosen.

@pytest.mark.parametrize("c", [small(name) for name in ("pads and strides", "flip, pads and strides", "hanging windows",
                                                        "outputs beyond the image")])
def test_gradients_of_each_op(c, rng):
    images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    args, x, w, h = kernel_args(c), tt.ftensor4(), tt.ftensor4(), tt.ftensor4()
    outputs = op_of(FilterActs, c)(x, w, grid_of(c))
    d_images = op_of(ImageActs, c)(h, w, c.image)
    d_filters, = op_of(WeightActs, c)(x, h, c.filter_shape)
    wanted = tt.grad((outputs * h).sum(), [x, w])  # two gradients of each op, every one of them known
    wanted += tt.grad((d_images * x).sum(), [h, w]) + tt.grad((d_filters * w).sum(), [x, h])
    results = theano.function([x, w, h], wanted, mode=PLAIN)(images, filters, hid)
    by_images = reference.image_acts(hid, filters, c.image, *args)
    by_filters = reference.weight_acts(images, hid, c.filter_shape, *args)
    by_hid = reference.filter_acts(images, filters, grid_of(c), *args)
    for result, right in zip(results, (by_images, by_filters, by_hid, by_filters, by_images, by_hid)):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("kind", OPS)
def test_r_op(kind, rng):
    c = case(pad=1, stride=2, image=(7, 7), filter_shape=(3, 3))
    values = dict(zip("xwh", operands(c, lambda *shape: whole_numbers(rng, shape))))
    names, shape = {FilterActs: ("xw", grid_of(c)), ImageActs: ("hw", c.image),
                    WeightActs: ("xh", c.filter_shape)}[kind]
    first, second = (values[name] for name in names)
    d_first, d_second = whole_numbers(rng, first.shape), whole_numbers(rng, second.shape)
    a, b, da, db = tt.ftensor4s(4)
    out = op_of(kind, c)(a, b, shape, return_list=True)[0]
    both = theano.function([a, b, da, db], tt.Rop(out, [a, b], [da, db]), mode=PLAIN)
    one = theano.function([a, b, db], tt.Rop(out, b, db), mode=PLAIN, on_unused_input="ignore")
    value = theano.function([a, b], out, mode=PLAIN)
    np.testing.assert_array_equal(both(first, second, d_first, d_second),
                                  value(d_first, second) + value(first, d_second))
    np.testing.assert_array_equal(one(first, second, d_second), value(first, d_second))


def test_output_shape_is_disconnected():
    x, w, shape = tt.ftensor4(), tt.ftensor4(), tt.lvector()
    for kind in OPS:
        node = kind().make_node(x, w, shape)
        assert kind().connection_pattern(node) == [[True], [True], [False]]
    node = WeightActs(partial_sum=3).make_node(x, w, shape)
    assert node.op.connection_pattern(node) == [[True, True], [True, True], [False, False]]


def test_a_gradient_through_partials_is_refused():
    x, h = tt.ftensor4(), tt.ftensor4()
    total, partials = WeightActs(partial_sum=3)(x, h, (3, 3))
    assert len(tt.grad(total.sum(), [x, h])) == 2
    with pytest.raises(NullTypeGradError, match="take that of output 0"):
        tt.grad(partials.sum(), x)


def test_gradients_keep_broadcast_patterns():
    x = tt.TensorType("float32", (True, True, False, False))()
    w = tt.TensorType("float32", (True, False, True, True))()
    for kind in (FilterActs, ImageActs):
        gradients = tt.grad(kind()(x, w).sum(), [x, w])
        assert [g.broadcastable for g in gradients] == [x.broadcastable, w.broadcastable]


# ---------------------------------------------------------------------------------------------------------------------
# As Theano ops: types, shapes, messages, equality, compilation.

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
    for refusing, operands in ((theanos(AbstractConv2d_gradWeights, border, stride, 3), (images, np.ones_like(expected))),
                               (functools.partial(run, weights), (turned[0], hid))):
        with pytest.raises(ValueError):
            refusing(*operands, filter_shape)


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


@pytest.mark.parametrize("op, first, second, shape, message", list(MALFORMED.values()), ids=list(MALFORMED))
def test_malformed_sizes_are_refused_in_the_same_words(op, first, second, shape, message):
    values = [np.ones(first, "f"), np.ones(second, "f")] + ([] if shape is None else [np.array(shape, "int64")])
    with pytest.raises(ValueError) as compiled_error:
        run(op, *values)
    assert str(compiled_error.value).split("\n")[0] == message
    with pytest.raises(ValueError) as reference_error:
        op.perform(None, values, [[None], [None]])
    assert str(reference_error.value) == message


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
