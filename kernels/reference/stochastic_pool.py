"""Stochastic pooling in c01b order in plain numpy: the definition for the kernels, which draw the same pixels bit by bit.

Of a window with values a, pixel i is drawn with probability a_i / (sum of a). Source: Zeiler, Fergus: Stochastic pooling (2013),
section 3.1. Random numbers come from a generator without a state: each is a function of (seed, draw, place), so that neither
the number of threads nor the width of a vector matters. Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
1, 2, 3 (2011), Philox4x32-10.
"""
import numpy as np

from .pool import _windows

# The multipliers and what the keys grow by, from the paper.
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10

# A generator's call gives 4 words; 16 calls that differ in the last counter alone make a group, word after word.
CALLS, GROUP = 16, 64


def philox(counter, key):
    """Four random words.

    Parameters
    ----------
    counter : 4 uint64 arrays of values below 2**32
    key : 2 such arrays

    Returns
    -------
    4 uint64 arrays of values below 2**32
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (second >> _HALF) ^ c1 ^ k0, second & _LOW, (first >> _HALF) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def _words(number):
    """An int64 as two words, the low one first."""
    number = np.asarray(number, "int64").astype("uint64")
    return number & _LOW, number >> _HALF


def uniform(rows, count, seed, draw):
    """Random numbers of [0, 1), multiples of 2**-24: float32 array (rows, count).

    Number e of row r is word (e mod 64) // 16 of the generator's output for counter (n, draw) and key seed, both of 64 bits,
    with n = (r * groups + e // 64) * 16 + e mod 16, where groups = ceil(count / 64).

    Parameters
    ----------
    rows, count : int
    seed, draw : int
        Of 64 bits.
    """
    groups = -(-count // GROUP)
    numbers = np.arange(rows * groups * CALLS, dtype="int64")
    words = philox(_words(numbers) + _words(draw), _words(seed))
    words = np.stack([np.broadcast_to(word, numbers.shape) for word in words]).reshape(4, rows, groups, CALLS)
    values = (words >> np.uint64(8)).astype("float32") * np.float32(2.0 ** -24)
    return np.moveaxis(values, 0, 2).reshape(rows, groups * GROUP)[:, :count]


def stochastic_max_pool(x, output_shape, ds, stride, start, seed, draw):
    """One value of each window: array (channels, rows, columns, batch), rows and columns as `output_shape` says.

    The first pixel, in raster order, up to which the sum exceeds u times the whole sum, with u of [0, 1). 0 where there is
    none: in a window whose sum is 0, not finite or so small that the product rounds up to it.

    Parameters
    ----------
    x : array (channels, rows, columns, batch)
        Not negative.
    output_shape, ds, stride, start : (int, int)
        See `kernels.reference.pool`.
    seed, draw : int
        See `uniform`; a row is a row of windows, of one channel.
    """
    channels, batch = x.shape[0], x.shape[3]
    out = np.zeros((channels,) + tuple(output_shape) + (batch,), x.dtype)
    u = uniform(channels * output_shape[0], output_shape[1] * batch, seed, draw).reshape(out.shape)
    for (i, j), pixels in _windows(output_shape, x.shape[1:3], ds, stride, start):
        sums = np.cumsum([x[:, row, column] for row, column in pixels], axis=0, dtype=x.dtype)
        exceeds = sums > u[:, i, j] * sums[-1]
        first = exceeds & (np.cumsum(exceeds, axis=0) == 1)
        for (row, column), drawn in zip(pixels, first):
            out[:, i, j] = np.where(drawn, x[:, row, column], out[:, i, j])
    return out
