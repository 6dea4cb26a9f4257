"""Sizes at the edges of what an index holds: right results, or one exception with the numbers in it.

Arrays of more than 2**31 elements take next to no memory here: what is only read is zeros that nobody has touched, and what is
written is one small file of memory, mapped again and again.
"""
import ctypes
import mmap
import os
import subprocess

import numpy as np
import pytest
import theano
import theano.tensor as T

import guarded
from layoutopt.kernels import base
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.pool import MaxPool, MaxPoolGradGrad
from layoutopt.kernels.relayout import to_c01b
from layoutopt.kernels.reshape import ReshapeC01B
from layoutopt.kernels.take import take_to_c01b

INT32 = 2 ** 31 - 1
MAP_NORESERVE, MAP_FIXED = 0x4000, 0x10  # Linux's, which Python's mmap does not name


def run(op, *values, outputs=()):
    """The op's C code on arrays; `outputs` is what it may use for results."""
    inputs, results, thunk, _ = guarded.thunk_of(op, *values)
    for storage, value in zip(inputs + results, values + tuple(outputs)):
        storage[0] = value
    thunk()
    return [storage[0] for storage in results]


# ---------------------------------------------------------------------------------------------------------------------
# More elements than 2**31.

ROWS, BATCH = 70000, 32768  # of one channel and column: 9 GB of float32


def untouched(size):
    """So many bytes of zeros, which take memory only where they are written to."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except OSError as error:
        pytest.skip("this system has no place for %d bytes, not even of zeros: %s" % (size, error))


@pytest.fixture(scope="module")
def images():
    """Zeros but for the first and the last row, at both ends of their batch."""
    x = np.frombuffer(untouched(4 * ROWS * BATCH), "float32").reshape(1, ROWS, 1, BATCH)
    x[0, 0, 0, :3] = 1, 2, 3
    x[0, -1, 0, -3:] = 4, 5, 6
    return x


def ends(x):
    return x[:, [0, -1]]


FAR = dict(stride=(ROWS - 1, 1))  # two windows: the first row and the last


def test_far_rows_are_read(images):
    filters = np.float32([2]).reshape(1, 1, 1, 1)
    for op in (FilterActs(**FAR), MaxPool(1, **FAR), AvgPool(1, **FAR)):
        factor = 2 if isinstance(op, FilterActs) else 1
        out, = run(op, *([images, filters] if factor == 2 else [images]))
        np.testing.assert_array_equal(out, factor * ends(images))
    maxima = ends(images).copy()
    out, = run(MaxPool(1, **FAR).like(MaxPoolGradGrad), images, maxima, images)
    np.testing.assert_array_equal(out, maxima)
    out, = run(WeightActs(**FAR), images, maxima, np.array([1, 1]))
    assert out.item() == (maxima ** 2).sum() == 91


def repeated(shape, dtype, size=2 ** 24):
    """An array whose memory is the same `size` bytes again and again, but for the first and the last of these pieces."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
    count = int(np.prod(shape, dtype=int))
    times = -(-count * np.dtype(dtype).itemsize // size)
    file = os.memfd_create("repeated")
    os.truncate(file, size)
    try:
        room = untouched(times * size)  # and the file over it, piece by piece
        begin = ctypes.addressof(ctypes.c_char.from_buffer(room))
        for piece in range(1, times - 1):
            place = begin + piece * size
            assert libc.mmap(place, size, guarded.READING_AND_WRITING, mmap.MAP_SHARED | MAP_FIXED, file, 0) == place
    finally:
        os.close(file)
    return np.frombuffer(room, dtype, count).reshape(shape)


def test_far_rows_are_written(images):
    last, filters = ends(images).copy(), np.float32([2]).reshape(1, 1, 1, 1)
    for op, operands in ((ImageActs(**FAR), (last, filters, np.array([ROWS, 1]))),
                         (AvgPool(1, **FAR).like(AvgPoolGrad), (last, np.array([ROWS, 1])))):
        target = repeated(images.shape, "float32")
        target[:, [0, 1, -2, -1]] = np.nan
        out, = run(op, *operands, outputs=[target])
        assert out is target
        np.testing.assert_array_equal(ends(out), last * (2 if isinstance(op, ImageActs) else 1))
        assert not out[:, [1, -2]].any()


def test_far_bytes_change_places():
    x = np.frombuffer(untouched(2 ** 31 + 1400), "int8").reshape(2, -1)
    x[0, 0], x[1, 0], x[0, -1], x[1, -1] = 1, 2, 3, 4
    target = repeated((2 ** 30 + 700, 2), "int8")
    out, = run(to_c01b, x, outputs=[target])
    assert out is target
    np.testing.assert_array_equal(out[[0, 1, -2, -1]], [[1, 2], [0, 0], [0, 0], [3, 4]])


# ---------------------------------------------------------------------------------------------------------------------
# Parameters as large as they may be.

def ones(*shape):
    return np.ones(shape, "float32")


OUT_OF_MEMORY = """
#include "parallel.h"
int main() {
    int done = 0;
    try {
        c01b::parallel_for(100, 4, [&](int64_t i, int) {
            i % 9 == 5 ? throw std::bad_alloc() : __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
        });
    } catch (const std::bad_alloc&) {
        return done == 89 ? 7 : 1;
    }
    return 0;
}
"""


def test_no_memory_inside_a_thread_is_an_exception_outside(tmp_path):
    (tmp_path / "program.cpp").write_text(OUT_OF_MEMORY)
    subprocess.run([theano.config.cxx, "-std=gnu++17", "-fopenmp", "-I", base.CPU_HEADERS, "program.cpp", "-o", "program"],
                   check=True, cwd=str(tmp_path))
    assert subprocess.run([str(tmp_path / "program")]).returncode == 7


def named(cases):
    return [pytest.param(*case, id=str(case[0])) for case in cases]


@pytest.mark.parametrize("op, values", named([
    (FilterActs(pad=INT32, stride=INT32), (ones(2, 5, 4, 3), ones(2, 3, 2, 7))),
    (ImageActs(pad=INT32, stride=INT32), (ones(7, 3, 3, 3), ones(2, 3, 2, 7), np.array([5, 4]))),
    (WeightActs(pad=INT32, stride=INT32), (ones(2, 5, 4, 3), ones(7, 3, 3, 3), np.array([3, 2]))),
    (FilterActs(pad=INT32, stride=INT32), (ones(2, 5, 4, 33), ones(2, 3, 2, 1))),
    (FilterActs(pad=INT32, stride=INT32), (ones(1, 5, 4, 16), ones(1, 3, 2, 2))),
    (ImageActs(stride=INT32), (ones(7, 1, 1, 3), ones(2, 3, 2, 7), np.array([5, 4]))),
    (MaxPool(INT32), (ones(2, 5, 4, 3),)),
    (MaxPool(INT32, INT32, 1 - INT32), (ones(2, 5, 4, 3),)),
    (MaxPool(INT32, INT32, 1 - INT32).like(MaxPoolGradGrad), (ones(2, 5, 4, 3), ones(2, 2, 2, 3), ones(2, 5, 4, 3))),
    (AvgPool(INT32, 1, 1 - INT32, outputs=3, mode="average_inc_pad"), (ones(2, 5, 4, 3),)),
    (AvgPool(INT32, 1, 1 - INT32, outputs=3, mode="average_inc_pad").like(AvgPoolGrad), (ones(2, 3, 3, 3), np.array([5, 4]))),
]))
def test_the_largest_parameters(op, values):
    out, = run(op, *values)
    *_, node = guarded.thunk_of(op, *values)
    expected, = guarded.reference(op, node, values)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("make, message", [
    (lambda: FilterActs(pad=2 ** 31), "pad must be at most 2147483647, got"),
    (lambda: FilterActs(stride=2 ** 63), "stride must be at most 2147483647, got"),
    (lambda: FilterActs(groups=2 ** 31), "groups must be at most 2147483647, got"),
    (lambda: WeightActs(partial_sum=2 ** 70), "partial_sum must be at most 2147483647, got"),
    (lambda: MaxPool(2 ** 31), "ds must be at most 2147483647, got 2147483648"),
    (lambda: MaxPool(2, 2, 0, 2 ** 40), "outputs must be at most 2147483647, got 1099511627776"),
    (lambda: AvgPool(2, 2, -2 ** 31), "start must be at least -2147483647, got -2147483648"),
])
def test_larger_ones_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("op, values, error, message", named([
    (FilterActs(pad=INT32), (ones(1, 5, 4, 3), ones(1, 3, 2, 7)), ValueError,
     "images of 5 x 4 give 4294967297 x 4294967297 outputs with filters of 3 x 2"),
    (ImageActs(pad=INT32), (ones(1, 5, 4, 3), ones(1, 3, 2, 1), np.array([INT32, INT32])), ValueError,
     r"5 output rows do not fit images of 2147483647, filters of 3, pad \(2147483647, 2147483647\), stride 1: at least 644245"),
    (WeightActs(pad=INT32, stride=INT32), (ones(9, 5, 4, 3), ones(1, 5, 5, 3), np.array([INT32, INT32])), ValueError,
     r"a result of sizes \(9, 2147483647, 2147483647, 1\) would be larger than any memory"),
    (WeightActs(), (ones(1, 5, 4, 3), ones(1, 5, 4, 3), np.array([2 ** 40, 1])), ValueError, "too large: 1099511627776"),
    (MaxPool(2, 2, 0, INT32), (ones(1, 5, 4, 3),), ValueError, "images of 5 rows: window 2147483647, of 2 from 4294967292 on"),
    (AvgPoolGrad(2), (ones(1, 3, 2, 3), np.array([2 ** 31, 4])), ValueError, "images of 2147483648 x 4"),
    (take_to_c01b, (ones(5, 3, 1, 1), np.array([2 ** 62])), IndexError, "index 4611686018427387904 is out of bounds for 5"),
    (take_to_c01b, (ones(5, 3, 1, 1), np.array([-2 ** 63])), IndexError, "index -9223372036854775808 is out of bounds for 5"),
]))
def test_sizes_that_no_memory_holds(op, values, error, message):
    with pytest.raises(error, match=message):
        run(op, *values)


@pytest.mark.parametrize("op, values, shape", named([
    (FilterActs(), (ones(3, 2 ** 31, 5, 0), ones(3, 3, 3, 2)), (2, 2 ** 31 - 2, 3, 0)),
    (ImageActs(), (ones(2, 5, 5, 0), ones(3, 3, 3, 2), np.array([7, 7])), (3, 7, 7, 0)),
    (ImageActs(stride=INT32), (ones(2, 2, 1, 0), ones(3, 3, 3, 2), np.array([INT32, 3])), (3, INT32, 3, 0)),
    (WeightActs(), (ones(0, 5, 5, 2), ones(3, 3, 3, 2), np.array([3, 3])), (0, 3, 3, 3)),
    (MaxPool(2), (ones(2 ** 40, 4, 4, 0),), (2 ** 40, 2, 2, 0)),
    (AvgPool(2).like(AvgPoolGrad), (ones(2 ** 40, 2, 2, 0), np.array([4, 4])), (2 ** 40, 4, 4, 0)),
    (to_c01b, (ones(0, 2 ** 40, 3, 1),), (2 ** 40, 3, 1, 0)),
]))
def test_nothing_however_long(op, values, shape):
    assert run(op, *values)[0].shape == shape


def test_reshape_counts_in_whole_numbers():
    x, shape = T.fmatrix(), T.lvector()
    f = theano.function([x, shape], ReshapeC01B((False, False))(x, shape), mode=theano.Mode("py", None))
    with pytest.raises(ValueError, match=r"cannot reshape \(3, 0\), the batch last, to \(4294967296, 4294967296\)"):
        f(ones(3, 0), np.array([2 ** 32, 2 ** 32]))  # 2**64 elements are none in 64 bits
