"""FilterActs, ImageActs and WeightActs against their definition, against Theano's convolutions, and their derivatives."""
import collections
import functools
import itertools

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
