"""Tanh and Sigmoid: error in ulp, special values, any array, gradients, work in place, and the rewrite to them."""
import ast
import functools
import os
import re
import subprocess

import numpy as np
import pytest
import theano
import theano.tensor as T
from numpy.polynomial import Chebyshev, Polynomial
from theano.tensor.inplace import tanh_inplace

from layoutopt.kernels import base
from layoutopt.kernels.activation import Sigmoid, Tanh, sigmoid, tanh
from layoutopt.kernels.reference import activation as reference
from layoutopt.rewrites.activations import vectorise

LIMIT = 2  # ulp, what the ops promise
PLAIN = theano.Mode(linker="cvm", optimizer=None)
OURS = {tanh: reference.tanh, sigmoid: reference.sigmoid}
both = pytest.mark.parametrize("op", [tanh, sigmoid], ids=["tanh", "sigmoid"])


@functools.lru_cache(maxsize=None)
def compiled(op, ndim=1):
    x = T.TensorType("float32", (False,) * ndim)("x")
    return theano.function([x], op(x), mode=PLAIN)


def exact(op, x):
    """In float64, whose own error is 2**-29 ulp of float32."""
    x = x.astype("float64")
    with np.errstate(over="ignore"):
        return np.tanh(x) if isinstance(op, Tanh) else 1 / (1 + np.exp(-x))


def ulps(result, expected):
    """Distance from float64 `expected`, in units in the last place of the float32 numbers around it."""
    unit = np.spacing(abs(expected.astype("float32"))).astype("float64")
    return abs(result - expected) / unit


def assert_close(op, x, result):
    assert result.dtype == "float32" and result.shape == x.shape and result.flags.c_contiguous
    assert not np.isnan(result).any()
    error = ulps(result, exact(op, x))
    assert (error <= LIMIT).all(), "%g ulp at %r" % (error.max(), x.flat[np.argmax(error)])


def dense_sample(step):
    """Every `step`-th float32 number that is finite, both signs of it."""
    bits = np.arange(0, 0x7F800000, step, dtype="uint32")
    return np.r_[bits, bits | 0x80000000].astype("uint32").view("float32")


@both
def test_error_over_all_finite_numbers(op):
    x = dense_sample(4093)
    assert_close(op, x, compiled(op)(x))


@both
def test_error_where_functions_bend(op):
    for low, high in [(2.0 ** -14, 0.25), (0.25, 1), (1, 10), (10, 105)]:
        size = np.linspace(low, high, 100001, dtype="float32")
        x = np.r_[size, -size]
        assert_close(op, x, compiled(op)(x))


def test_special_values_of_tanh():
    f = compiled(tanh)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, 9.1, -9.1, 3.4e38, -3.4e38])
    expected = np.float32([0.0, -0.0, 1, -1, 1, -1, 1, -1])
    np.testing.assert_array_equal(f(special).view("uint32"), expected.view("uint32"))  # -0 is not 0
    tiny = np.float32([1e-45, 1e-40, 1.2e-38, 1e-30, 1e-10, 1e-4])
    np.testing.assert_array_equal(f(np.r_[tiny, -tiny]), np.r_[tiny, -tiny])
    x = dense_sample(40009)
    np.testing.assert_array_equal(f(-x).view("uint32"), (-f(x)).view("uint32"))


def test_special_values_of_sigmoid():
    x = np.float32([0.0, -0.0, np.inf, -np.inf, 18, 3.4e38, -3.4e38, -104])
    np.testing.assert_array_equal(compiled(sigmoid)(x), np.float32([0.5, 0.5, 1, 0, 1, 1, 0, 0]))
    subnormal = compiled(sigmoid)(np.linspace(-103.5, -88, 1000, dtype="float32"))
    assert (subnormal > 0).all() and (subnormal < np.finfo("float32").tiny).all() and (np.diff(subnormal) >= 0).all()


@both
def test_nan_stays_and_touches_nothing_else(op):
    x = np.linspace(-2, 2, 37, dtype="float32")
    holes = x.copy()
    holes[5::11] = np.nan
    expected = np.where(np.isnan(holes), holes, compiled(op)(x))
    np.testing.assert_array_equal(compiled(op)(holes), expected)


@both
def test_sizes_around_vectors_and_blocks(op, rng):
    every = (3 * rng.standard_normal(2 ** 16 + 40)).astype("float32")
    values = compiled(op)(every)
    assert_close(op, every, values)
    for size in [*range(0, 68), 4095, 4096, 4097, 8191, 16385, 2 ** 16 + 1]:
        # The same number gives the same result wherever it stands, so a wrong tail or block shows bit by bit.
        np.testing.assert_array_equal(compiled(op)(every[:size]), values[:size])


@both
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 0, 3), (2, 3, 5), (1, 4, 1, 6), (2, 1, 3, 2, 5)], ids=str)
def test_ranks(op, shape, rng):
    x = rng.standard_normal(shape).astype("float32")
    assert_close(op, np.asarray(x), np.asarray(compiled(op, len(shape))(x)))


@functools.lru_cache(maxsize=None)
def compiled_inplace(op):
    x = T.ftensor3()
    return theano.function([theano.In(x, mutable=True)], type(op)(inplace=True)(x), mode=PLAIN, accept_inplace=True)


@both
def test_works_in_place(op, rng):
    x = rng.standard_normal((3, 4, 5)).astype("float32")
    expected = compiled(op, 3)(x)
    np.testing.assert_array_equal(compiled_inplace(op)(x), expected)
    np.testing.assert_array_equal(x, expected)


VIEWS = {
    "transposed": lambda x: x.T, "Fortran order": np.asfortranarray, "every other": lambda x: x[:, ::2],
    "reversed": lambda x: x[::-1], "cropped": lambda x: x[1:-1, 1:-1],
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
}


@both
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_any_strides(op, inplace, view, rng):
    whole = rng.standard_normal((11, 9, 13)).astype("float32")
    x = VIEWS[view](whole)
    before = whole.copy()
    f = compiled_inplace(op) if inplace else compiled(op, 3)
    for _ in range(2):  # the second time into the storage of the first
        result = f(x)
        assert_close(op, x, result)
        assert not np.shares_memory(result, whole)
    np.testing.assert_array_equal(whole, before)


def test_storage_is_used_again(rng):
    x = T.fmatrix()
    mode = theano.Mode(linker=theano.gof.vm.VM_Linker(allow_gc=False, use_cloop=True), optimizer=None)
    f = theano.function([x], theano.Out(tanh(x), borrow=True), mode=mode)
    first, second = f(rng.rand(5, 6).astype("float32")), f(rng.rand(5, 6).astype("float32"))
    assert np.shares_memory(first, second)


@both
def test_perform_is_the_reference(op, rng):
    x = np.r_[dense_sample(1000003), np.float32([np.inf, -np.inf, np.nan])].reshape(-1, 1)[::2]
    cell = [None]
    op.perform(op.make_node(T.fmatrix()), [x], [cell])
    with np.errstate(over="ignore"):
        expected = exact(op, x).astype("float32")
    np.testing.assert_array_equal(cell[0], expected)
    assert cell[0].dtype == "float32" and cell[0].flags.c_contiguous
    np.testing.assert_array_equal(OURS[op](np.float32(0.25)), exact(op, np.float32(0.25)).astype("float32"))


@both
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "complex64"])
def test_other_dtypes_are_refused(op, dtype):
    with pytest.raises(TypeError, match="x must be a float32 tensor"):
        op(T.vector(dtype=dtype))


@both
def test_infer_shape(op):
    x = T.TensorType("float32", (False, True, False))()
    assert op(x).broadcastable == x.broadcastable
    shape = theano.function([x], op(x).shape)
    assert not any(isinstance(node.op, type(op)) for node in shape.maker.fgraph.toposort())
    assert tuple(shape(np.ones((2, 1, 3), "float32"))) == (2, 1, 3)


STOCK = {tanh: T.tanh, sigmoid: T.nnet.sigmoid}


@both
@pytest.mark.parametrize("derivative", [T.Lop, T.Rop])
def test_derivatives_are_those_of_theano(op, derivative, rng):
    x, v = T.fmatrix(), T.fmatrix()
    ours = theano.function([x, v], derivative(op(x), x, v))
    value, direction = (rng.standard_normal((17, 5)).astype("float32") for _ in range(2))
    stock = theano.function([x, v], derivative(STOCK[op](x), x, v))(value, direction)
    # Near saturation 1 - y^2 is a difference of almost equal numbers: an absolute bound, 4 ulp of 1 each for y.
    np.testing.assert_allclose(ours(value, direction), stock, rtol=0, atol=abs(direction).max() * 8 * 2.0 ** -24)


@both
def test_second_derivative(op, rng):
    x = T.dvector()
    value = rng.standard_normal(9)
    second = {f: theano.function([x], T.grad(T.grad((f(x.astype("float32")) ** 2).sum(), x).sum(), x))
              for f in (op, STOCK[op])}
    np.testing.assert_allclose(second[op](value), second[STOCK[op]](value), atol=1e-5)


@both
def test_gradient_uses_the_forward_value(op):
    x = T.fmatrix()
    y = op(x)
    graph = theano.gof.graph.ancestors([T.grad(y.sum(), x)])
    assert [v for v in graph if v.owner and isinstance(v.owner.op, type(op))] == [y]


def activations(function):
    return [node.op for node in function.maker.fgraph.toposort() if isinstance(node.op, (Tanh, Sigmoid))]


@both
def test_in_place_where_nobody_else_reads(op, rng):
    x, b = T.fmatrix(), T.frow()
    f = theano.function([x, b], op(x + b), mode="FAST_RUN")
    assert [ours.inplace for ours in activations(f)] == [True]
    value, bias = rng.standard_normal((33, 5)).astype("float32"), rng.standard_normal((1, 5)).astype("float32")
    assert_close(op, value + bias, f(value, bias))


@both
def test_inputs_and_shared_values_are_not_destroyed(op, rng):
    x = T.fmatrix()
    state = theano.shared(rng.standard_normal((4, 5)).astype("float32"))
    value, kept = rng.standard_normal((4, 5)).astype("float32"), state.get_value()
    f = theano.function([x], [op(x), op(state)], mode="FAST_RUN")
    assert [ours.inplace for ours in activations(f)] == [False, False]
    before = value.copy()
    f(value)
    np.testing.assert_array_equal(value, before)
    np.testing.assert_array_equal(state.get_value(), kept)


@both
def test_values_that_others_read_survive(op, rng):
    x = T.fmatrix()
    total = T.dot(x, x)
    f = theano.function([x], [op(total), T.dot(total, total), total], mode="FAST_RUN")
    value = rng.standard_normal((6, 6)).astype("float32")
    first, second, third = f(value)
    plain = theano.function([x], total)(value)
    np.testing.assert_array_equal(third, plain)
    np.testing.assert_allclose(second, plain.dot(plain), rtol=1e-4)
    assert_close(op, plain, first)


def test_both_kinds_and_all_ranks_are_one_module():
    assert len({op.c_code(op.make_node(T.TensorType("float32", (False,) * ndim)()), "name", ["x"], ["z"],
                          {"params": "p", "fail": ""}) for op in (tanh, Tanh(inplace=True)) for ndim in range(5)}) == 1
    assert tanh == Tanh() != Tanh(inplace=True) != sigmoid and hash(tanh) == hash(Tanh())


# The rewrite.
def rewritten(inputs, outputs):
    fgraph = theano.gof.FunctionGraph(inputs, outputs, clone=True)
    return vectorise(fgraph), fgraph


def test_rewrite_replaces_every_rank_and_keeps_names():
    x, m, v, s = T.ftensor4(), T.fmatrix(), T.fvector(), T.fscalar()
    outputs = [T.tanh(x), T.nnet.sigmoid(m), T.tanh(v), T.tanh(s)]
    for i, output in enumerate(outputs):
        output.name = "y%d" % i
    count, fgraph = rewritten([x, m, v, s], outputs)
    assert count == 3
    assert [output.owner.op for output in fgraph.outputs[:3]] == [tanh, sigmoid, tanh]
    assert [output.name for output in fgraph.outputs] == ["y0", "y1", "y2", "y3"]
    assert [output.type for output in fgraph.outputs] == [output.type for output in outputs]


def test_rewrite_leaves_other_functions_alone():
    x, d, i, h = T.fmatrix(), T.dmatrix(), T.imatrix(), T.TensorType("float16", (False, False))()
    outputs = [T.tanh(d), T.nnet.sigmoid(d), T.tanh(h), T.sinh(x), T.nnet.hard_sigmoid(x), T.nnet.ultra_fast_sigmoid(x),
               T.tanh(i), tanh_inplace(x)]
    count, fgraph = rewritten([x, d, i, h], outputs)
    assert count == 0
    assert [output.owner.op for output in fgraph.outputs] == [output.owner.op for output in outputs]


def test_rewrite_of_a_gradient_computes_tanh_once(rng):
    """Reshape(tanh(x)), for the next layer, shares its tanh with the gradient; so does a repeated tanh(x)."""
    x = T.ftensor4()
    lifted = [T.tanh(x.reshape((4, -1))), T.tanh(x.reshape((4, -1)).T), T.tanh(x), T.tanh(x)]
    plain = theano.function([x], lifted, mode=PLAIN)
    count, fgraph = rewritten([x], lifted)
    assert count == 4
    ours = [node for node in fgraph.toposort() if isinstance(node.op, Tanh)]
    assert len(ours) == 1
    value = rng.standard_normal((4, 2, 3, 5)).astype("float32")
    function = theano.function(fgraph.inputs, fgraph.outputs, mode=PLAIN)
    for result, stock in zip(function(value), plain(value)):
        np.testing.assert_allclose(result, stock, rtol=3 * 2.0 ** -23)


def test_compiled_training_step(rng):
    """As the optimizer calls it, before fusion: no libm tanh left, and the same numbers."""
    x = T.fmatrix()
    w = theano.shared(rng.standard_normal((5, 7)).astype("float32"))
    b = theano.shared(np.zeros(7, "float32"))
    cost = (T.tanh(T.dot(x, w) + b) * T.nnet.sigmoid(T.dot(x, w))).sum()
    outputs = [cost, *T.grad(cost, [w, b])]

    class Vectorise(theano.gof.Optimizer):
        def apply(self, fgraph):
            vectorise(fgraph)

    mode = theano.compile.get_mode("FAST_RUN").register((Vectorise(), 5.0))
    ours, stock = theano.function([x], outputs, mode=mode), theano.function([x], outputs, mode="FAST_RUN")
    assert sorted(type(op).__name__ for op in activations(ours)) == ["Sigmoid", "Tanh"]
    assert not re.search("tanh|sigmoid", " ".join(str(node.op) for node in ours.maker.fgraph.toposort()))
    value = rng.standard_normal((9, 5)).astype("float32")
    for a, b in zip(ours(value), stock(value)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# The coefficients, derived anew.
def header_constant(name):
    with open(os.path.join(base.CPU_HEADERS, "activation.h")) as header:
        text = re.search(r"%s\[\] = \{(.*?)\}" % name, header.read(), re.S).group(1)
    return np.array(ast.literal_eval("[%s]" % text.replace("f", "")))


def exp_tail(r):
    """(exp(r) - 1 - r) / r^2 by its series, of which 20 terms are below rounding for |r| < 1."""
    factorials = np.cumprod(np.arange(1.0, 23))
    return sum(r ** i / factorials[i + 1] for i in range(20))


def tanh_tail(z):
    """(tanh(x) / x - 1) / z for z = x^2, not near 0."""
    x = np.sqrt(z.astype("longdouble"))
    return ((np.tanh(x) - x) / (x * x * x)).astype("float64")


def test_coefficients():
    half = np.log(2) / 2
    for name, f, interval in [("exp_tail", exp_tail, [-half, half]), ("tanh_tail", tanh_tail, [0, 0.36])]:
        derived = Chebyshev.interpolate(f, 5, interval).convert(kind=Polynomial).coef
        np.testing.assert_allclose(header_constant(name), derived, rtol=2.0 ** -24, atol=1e-12)


def test_errors_of_the_polynomials():
    r = np.linspace(-np.log(2) / 2, np.log(2) / 2, 10001)
    assert abs(r * r * (Polynomial(header_constant("exp_tail"))(r) - exp_tail(r))).max() < 2.0 ** -30
    z = np.linspace(1e-4, 0.36, 10001)
    x = np.sqrt(z)
    assert abs(x * z * (Polynomial(header_constant("tanh_tail"))(z) - tanh_tail(z)) / np.tanh(x)).max() < 2.0 ** -27.8


# Vectors of other machines: the header alone, compiled with few lanes and for any processor.
HARNESS = r"""
#include "activation.h"
#include <cstdio>
#include <vector>

int main(int, char** names) {
    std::vector<float> x(%d), tanh(x.size()), sigmoid(x.size());
    FILE* in = std::fopen(names[1], "rb");
    if (!in || std::fread(x.data(), 4, x.size(), in) != x.size()) return 1;
    std::fclose(in);
    c01b::activate<c01b::Tanh>(x.data(), tanh.data(), x.size(), 1);
    c01b::activate<c01b::Sigmoid>(x.data(), sigmoid.data(), x.size(), 1);
    FILE* out = std::fopen(names[2], "wb");
    std::fwrite(tanh.data(), 4, x.size(), out);
    std::fwrite(sigmoid.data(), 4, x.size(), out);
    return std::fclose(out);
}
"""


@pytest.mark.parametrize("flags", [["-DLAYOUTOPT_LANES=4"], ["-DLAYOUTOPT_LANES=8"],
                                   ["-fsanitize=undefined,address", "-fno-sanitize-recover=all"]], ids=" ".join)
def test_other_vectors(flags, tmp_path):
    x = np.r_[dense_sample(100003), np.linspace(-12, 12, 20001, dtype="float32")]
    (tmp_path / "harness.cpp").write_text(HARNESS % len(x))
    x.tofile(str(tmp_path / "x"))
    run = functools.partial(subprocess.run, check=True, cwd=str(tmp_path))
    # -Wno-psabi: vectors wider than the processor's are passed between inline functions only, their ABI is no matter.
    run([theano.config.cxx, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-I", base.CPU_HEADERS,
         *flags, "harness.cpp", "-o", "harness"])
    run([str(tmp_path / "harness"), "x", "y"])
    results = np.fromfile(str(tmp_path / "y"), "float32").reshape(2, -1)
    assert_close(tanh, x, results[0])
    assert_close(sigmoid, x, results[1])
