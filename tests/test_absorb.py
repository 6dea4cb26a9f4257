"""Conversions that disappear into whoever can take them: lists of images, stored weights, small elements, fused loops."""
import numpy as np
import pytest
import theano
import theano.tensor as T

from layoutopt.kernels.reference import relayout as reference
from layoutopt.kernels.take import take_to_c01b


def numbers(shape, dtype="float32"):
    """Different values all over, so that a misplaced element shows."""
    return (np.arange(np.prod(shape, dtype=int)) % 251).astype(dtype).reshape(shape)


# ---------------------------------------------------------------------------------------------------------------------
# Images picked by a list, converted on the way.


def take(x, rows):
    """take_to_c01b of arrays; one compiled function per dtype and rank."""
    key = str(x.dtype), x.ndim, str(rows.dtype)
    if key not in take.compiled:
        inputs = [T.TensorType(x.dtype, (False,) * x.ndim)(), T.TensorType(rows.dtype, (False,))()]
        take.compiled[key] = theano.function(inputs, take_to_c01b(*inputs))
    return take.compiled[key](x, rows)


take.compiled = {}
VIEWS = {
    "whole": lambda x: x, "every other image": lambda x: x[::2], "reversed": lambda x: x[::-1], "cropped": lambda x: x[:, :, 1:-1],
    "transposed": lambda x: x.transpose(3, 1, 2, 0),
}


@pytest.mark.parametrize("view", sorted(VIEWS))
@pytest.mark.parametrize("count", [0, 1, 15, 33])
def test_take_from_any_strides(rng, view, count):
    x = VIEWS[view](numbers((20, 3, 7, 18)))
    rows = rng.randint(-len(x), len(x), count)
    result = take(x, rows)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, reference.take_to_c01b(x, rows))


# Beyond the size from which threads are used and the caches avoided; more rows than a strip has, and fewer columns.
@pytest.mark.parametrize("dtype, shape, count", [("float32", (40, 16, 17, 19), 128), ("float32", (40, 3, 7), 1030),
                                                 ("uint8", (40, 90, 70), 530), ("uint8", (3, 5), 40)])
def test_take_large(rng, dtype, shape, count):
    x, rows = numbers(shape, dtype), rng.randint(0, shape[0], count)
    np.testing.assert_array_equal(take(x, rows), reference.take_to_c01b(x, rows))


@pytest.mark.parametrize("wrong", [5, -6])
def test_take_out_of_range(wrong):
    with pytest.raises(IndexError, match="index %d is out of bounds for 5 images" % wrong):
        take(numbers((5, 4)), np.array([0, wrong]))


@pytest.mark.parametrize("x, rows", [(T.fvector(), T.lvector()), (T.fmatrix(), T.lmatrix()), (T.fmatrix(), T.fvector())])
def test_take_refuses_other_types(x, rows):
    with pytest.raises(TypeError, match="TakeToC01B"):
        take_to_c01b(x, rows)


def test_take_gradient_and_shape():
    x, rows = T.fmatrix(), np.array([2, 0, 2])
    out = take_to_c01b(x, rows)
    gradient, shape = theano.function([x], [T.grad((out * numbers((2, 3))).sum(), x), out.shape])(numbers((4, 2)))
    np.testing.assert_array_equal(gradient, [[1, 4], [0, 0], [2, 8], [0, 0]])
    assert tuple(shape) == (2, 3)
