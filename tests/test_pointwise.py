"""Filters of one tap through the op, at sizes that tests/test_nests.py leaves out: results that no cache holds, written around all of
them where they begin with a line, which large results do.
"""
import functools

import numpy as np
import pytest
import theano
import theano.tensor as T

from layoutopt.kernels import FilterActs, ImageActs

from pooling import FAST
from tolerance import whole_numbers

LINE = 64  # bytes


@functools.lru_cache(maxsize=None)
def compiled(op_class, stride, size):
    x, filters = T.ftensor4s(2)
    shape = [] if op_class is FilterActs else [T.constant([size, size])]
    return theano.function([x, filters], op_class(stride=stride)(x, filters, *shape), mode=FAST)


@pytest.mark.parametrize("channels, filters, size, batch", [
    (16, 64, 64, 16),  # 16.8 MB of whole lines
    (7, 100, 52, 17),  # 18.4 MB, of which rows begin anywhere
])
def test_results_that_no_cache_holds(channels, filters, size, batch):
    rng = np.random.RandomState(0)
    images, weights = whole_numbers(rng, (channels, size, size, batch)), whole_numbers(rng, (channels, 1, 1, filters))
    result = compiled(FilterActs, 1, size)(images, weights)
    assert result.ctypes.data % LINE == 0 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, np.tensordot(weights[:, 0, 0], images, (0, 0)))


def test_a_strided_gradient_that_no_cache_holds():
    rng = np.random.RandomState(0)
    outputs, weights = whole_numbers(rng, (24, 32, 32, 16)), whole_numbers(rng, (70, 1, 1, 24))
    right = np.zeros((70, 64, 64, 16), "float32")
    right[:, ::2, ::2] = np.tensordot(weights[:, 0, 0], outputs, (1, 0))
    np.testing.assert_array_equal(compiled(ImageActs, 2, 64)(outputs, weights), right)
