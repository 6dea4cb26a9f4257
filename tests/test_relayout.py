"""Conversions between bc01 and c01b, and gpu_contiguous: against numpy, for any strides, dtype and rank."""
import functools

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st

from layoutopt.kernels.contiguous import gpu_contiguous
from layoutopt.kernels.reference import relayout as reference
from layoutopt.kernels.relayout import ToBC01, ToC01B, to_bc01, to_c01b

OPS = [(to_c01b, reference.to_c01b), (to_bc01, reference.to_bc01)]
both = pytest.mark.parametrize("op, expected", OPS, ids=["to_c01b", "to_bc01"])


@functools.lru_cache(maxsize=None)
def compiled(op, dtype="float32", ndim=4):
    x = T.TensorType(dtype, (False,) * ndim)("x")
    return theano.function([x], op(x))


def numbers(shape, dtype="float32"):
    """Different values all over, so that a misplaced element shows."""
    return (np.arange(np.prod(shape, dtype=int)) % 100003).astype(dtype).reshape(shape)


def check(op, expected, x):
    result = compiled(op, str(x.dtype), x.ndim)(x)
    assert result.flags.c_contiguous and result.dtype == x.dtype
    np.testing.assert_array_equal(result, expected(x))


@both
@settings(max_examples=60)
@given(shape=st.tuples(*[st.sampled_from([0, 1, 2, 3, 7, 15, 16, 17, 33])] * 4))
def test_matches_numpy(op, expected, shape):
    check(op, expected, numbers(shape))


# Views that are matrices with gaps between the rows, and views that are not and must be copied first.
VIEWS = {
    "every other image": lambda x: x[::2], "images reversed": lambda x: x[::-1], "last axis cut": lambda x: x[..., 3:],
    "cropped": lambda x: x[:, :, 1:-1], "every other column": lambda x: x[..., ::2], "one image": lambda x: x[2:3],
    "transposed": lambda x: x.transpose(1, 2, 3, 0), "transposed back": lambda x: x.transpose(3, 0, 1, 2),
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
}


@both
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_any_strides(op, expected, view):
    check(op, expected, VIEWS[view](numbers((18, 3, 5, 34))))


# Beyond the size from which threads are used and the caches avoided; whole vectors in a row, and not.
@both
@pytest.mark.parametrize("shape", [(128, 16, 17, 19), (16, 17, 19, 128), (100, 37, 19, 17), (37, 19, 17, 100),
                                   (1030, 7, 9, 11)])
def test_large(op, expected, shape):
    check(op, expected, numbers(shape))


@both
@pytest.mark.parametrize("dtype, shape", [("float64", (64, 3, 97)), ("float64", (96, 50, 77)), ("int8", (33, 70)),
                                          ("int16", (33, 700)), ("complex128", (17, 40))])
def test_dtypes_and_ranks(op, expected, dtype, shape):
    check(op, expected, numbers(shape, dtype))


def test_elements_aligned_as_their_halves_are():
    """complex64 may begin at any multiple of 4 bytes; `make sanitize` sees how it is read."""
    x = numbers((2 * 33 * 40 + 1,))[1:].view("complex64").reshape(33, 40)
    assert x.ctypes.data % 8 == 4 and x.flags.aligned
    check(to_c01b, reference.to_c01b, x)


def test_inverse_of_each_other():
    x = numbers((17, 3, 5, 4))
    np.testing.assert_array_equal(compiled(to_bc01)(compiled(to_c01b)(x)), x)


def test_broadcast_pattern_moves_along():
    x = T.TensorType("float32", (True, False, False, False))()
    assert to_c01b(x).broadcastable == (False, False, False, True)
    assert to_bc01(to_c01b(x)).broadcastable == x.broadcastable


@both
def test_infer_shape(op, expected):
    x = T.ftensor4()
    shape = theano.function([x], op(x).shape)
    assert not any(isinstance(node.op, (ToC01B, ToBC01)) for node in shape.maker.fgraph.toposort())
    value = numbers((2, 3, 4, 5))
    assert tuple(shape(value)) == expected(value).shape


@both
def test_gradient_and_r_op(op, expected):
    x, g = T.ftensor4(), T.ftensor4()
    back = theano.function([g], T.Lop(op(x), x, g), on_unused_input="ignore")
    value = numbers((2, 3, 4, 5))
    np.testing.assert_array_equal(back(expected(value)), value)
    along = theano.function([g], T.Rop(op(x), x, g), on_unused_input="ignore")
    np.testing.assert_array_equal(along(value), expected(value))


def test_integer_gradient_is_zero():
    x = T.lmatrix()
    gradient = T.grad(T.cast(to_c01b(x), "float32").sum(), x)
    np.testing.assert_array_equal(gradient.eval({x: [[1, 2]]}), [[0, 0]])


@both
def test_one_axis_is_refused(op, expected):
    with pytest.raises(TypeError, match="at least 2 axes"):
        op(T.fvector())


@both
def test_perform_is_the_reference(op, expected):
    x = T.ftensor4()
    value, cell = numbers((2, 3, 4, 5)), [None]
    op.perform(op.make_node(x), [value], [cell])
    np.testing.assert_array_equal(cell[0], expected(value))


def contiguous_function():
    x = theano.In(T.fmatrix("x"), borrow=True)
    mode = theano.Mode(linker=theano.gof.vm.VM_Linker(allow_gc=False, use_cloop=True), optimizer=None)
    return theano.function([x], theano.Out(gpu_contiguous(x.variable), borrow=True), mode=mode)


def test_gpu_contiguous():
    f, x = contiguous_function(), numbers((3, 4))
    assert np.shares_memory(f(x), x)
    result = f(x.T.copy().T)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, x)


def test_gpu_contiguous_leaves_earlier_inputs_alone():
    """Where Theano's own op, with allow_gc=False, overwrites the first array by the second."""
    f, first = contiguous_function(), np.ones((3, 3), "float32")
    f(first)
    f(numbers((3, 3)).T)
    np.testing.assert_array_equal(first, 1)


def test_gpu_contiguous_gradient():
    x, g = T.fmatrix(), T.fmatrix()
    value = numbers((2, 3))
    for derivative in (T.Lop, T.Rop):
        f = theano.function([g], derivative(gpu_contiguous(x), x, g), on_unused_input="ignore")
        np.testing.assert_array_equal(f(value), value)
