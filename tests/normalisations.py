"""Local response normalisation in the ways in which people write it, each (images, n, k, alpha, beta) -> normalised images."""
import numpy as np
import theano.tensor as T


def zeros_between(x, half, axis=1):
    """The squares of x with `half` zeros on either side of the channels."""
    sizes = [x.shape[i] + (2 * half if i == axis else 0) for i in range(4)]
    middle = tuple(slice(half, half + x.shape[i]) if i == axis else slice(None) for i in range(4))
    return T.set_subtensor(T.alloc(np.float32(0), *sizes)[middle], T.sqr(x))


def term_by_term(x, n, k, alpha, beta, divide=None):
    """pylearn2's and Lasagne's way: each neighbour scaled on its own."""
    squares, scale = zeros_between(x, n // 2), k
    for i in range(n):
        scale += alpha * squares[:, i:i + x.shape[1]]
    return divide(x, scale) if divide else x / scale ** beta


def channels_first(x, n, k, alpha, beta):
    """The same for images in c01b."""
    squares, scale = zeros_between(x, n // 2, axis=0), k
    for i in range(n):
        scale += alpha * squares[i:i + x.shape[0], :, :, :]
    return x / scale ** beta


def summed_first(x, n, k, alpha, beta, start=None):
    """One scale for the whole sum, as Caffe's formula has it, alpha shared out over the window."""
    squares = zeros_between(x, n // 2)
    total = T.zeros_like(x) if start is None else start
    for i in range(n):
        total = total + squares[:, i:i + x.shape[1]]
    return x / (k + alpha * total) ** beta


def in_one_sum(x, n, k, alpha, beta):
    squares = zeros_between(x, n // 2)
    return x * T.pow(k + alpha * sum(squares[:, i:i + x.shape[1]] for i in range(n)), -beta)


def pairs(x, n, k, alpha, beta):
    """The pixel's own square first, then its neighbours on both sides."""
    half, own = n // 2, x * x
    squares, total = zeros_between(x, half), own
    for i in range(1, half + 1):
        total += squares[:, half - i:half - i + x.shape[1]] + squares[:, half + i:half + i + x.shape[1]]
    return x / T.pow(total * alpha + k, beta)


def channels_last_between(x, n, k, alpha, beta):
    """Keras's way: zeros around permuted squares."""
    half, channels = n // 2, x.shape[1]
    squares = T.sqr(x).dimshuffle(0, 2, 3, 1)
    zeros = T.zeros((x.shape[0], x.shape[2], x.shape[3], channels + 2 * half), dtype="float32")
    squares = T.set_subtensor(zeros[:, :, :, half:half + channels], squares).dimshuffle(0, 3, 1, 2)
    scale = k
    for i in range(n):
        scale += alpha * squares[:, i:i + channels]
    return x / scale ** beta


def channels_last(x, n, k, alpha, beta):
    """All of it on permuted images."""
    return term_last(x.dimshuffle(0, 2, 3, 1), n, k, alpha, beta).dimshuffle(0, 3, 1, 2)


def term_last(x, n, k, alpha, beta):
    squares, scale = zeros_between(x, n // 2, axis=3), k
    for i in range(n):
        scale += alpha * squares[:, :, :, i:i + x.shape[3]]
    return x / scale ** beta


def joined(x, n, k, alpha, beta):
    """Zeros joined to the squares."""
    zeros = T.zeros((x.shape[0], n // 2, x.shape[2], x.shape[3]), dtype="float32")
    squares = T.concatenate([zeros, T.sqr(x), zeros], axis=1)
    return x / (k + alpha * T.add(*[squares[:, i:i + x.shape[1]] for i in range(n)])) ** beta


def from_the_end(x, n, k, alpha, beta):
    """Slices that end so many before the end, and an increment of zeros instead of an assignment."""
    half = n // 2
    zeros = T.zeros((x.shape[0], x.shape[1] + 2 * half, x.shape[2], x.shape[3]), dtype="float32")
    squares, scale = T.inc_subtensor(zeros[:, half:-half], x ** 2), k
    for i in range(n):
        scale += alpha * squares[:, i:i - n + 1 or None]
    return x / scale ** beta


def by_logarithms(x, n, k, alpha, beta):
    return term_by_term(x, n, k, alpha, beta, lambda x, scale: x * T.exp(-beta * T.log(scale)))


FORMS = [term_by_term, channels_first, summed_first, in_one_sum, pairs, channels_last_between, channels_last, joined,
         from_the_end, by_logarithms]
AXES = {channels_first: 0, channels_last: 3}  # of the channels in the op; 1 for the others

# Ways to divide, with the exponent that they are.
DIVISIONS = {
    "pow": (lambda x, scale: x / scale ** 0.75, 0.75),
    "a negative power": (lambda x, scale: x * scale ** -0.6, 0.6),
    "a root": (lambda x, scale: x / T.sqrt(scale), 0.5),
    "a root's inverse": (lambda x, scale: x * T.inv(T.sqrt(scale)), 0.5),
    "half a power": (lambda x, scale: x * scale ** -0.5, 0.5),
    "a root of a root": (lambda x, scale: x / T.sqrt(T.sqrt(scale)), 0.25),
    "two roots": (lambda x, scale: x / (T.sqrt(scale) * T.sqrt(T.sqrt(scale))), 0.75),
    "nothing": (lambda x, scale: x / scale, 1.0),
    "a square": (lambda x, scale: x / T.sqr(scale), 2.0),
    "a product": (lambda x, scale: x / (scale * scale), 2.0),
    "a power above 1": (lambda x, scale: x / scale ** 1.5, 1.5),
    "a logarithm": (lambda x, scale: x * T.exp(-0.75 * T.log(scale)), 0.75),
}
