"""Layers of convolutional networks, in ordinary bc01 Theano: images are (batch, channels, rows, columns).

Every layer takes the network's `Parameters` and its own name, then what it is applied to. A layer that is applied again
under the same name shares its weights with the first.
"""
import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet import conv2d, conv2d_transpose
from theano.tensor.nnet.bn import batch_normalization_train
from theano.tensor.signal.pool import pool_2d

relu = T.nnet.relu


def floats(values):
    return np.asarray(values, dtype=theano.config.floatX)


class Parameters:
    """What a network learns, by name: each made when first asked for, the same ever after.

    Attributes
    ----------
    updates : list of (shared variable, new value)
        What a training step changes besides the parameters: running averages.
    """

    def __init__(self, seed=23455):
        self.rng = np.random.RandomState(seed)
        self.by_name = {}
        self.updates = []

    @property
    def all(self):
        return list(self.by_name.values())

    def get(self, name, initial):
        if name not in self.by_name:
            self.by_name[name] = theano.shared(floats(initial()), name=name)
        return self.by_name[name]

    def weights(self, name, shape, fan_in):
        """Normal, so that rectified layers keep their variance (He et al., Delving deep into rectifiers, 2015)."""
        return self.get(name, lambda: self.rng.normal(0, np.sqrt(2.0 / fan_in), shape))

    def vector(self, name, size, value=0.0):
        return self.get(name, lambda: np.full(size, value))


def per_channel(vector):
    """A vector (channels) to be broadcast against images."""
    return vector.dimshuffle("x", 0, "x", "x")


def conv(params, name, x, channels, filters, side, stride=1, pad="half", bias=True, input_shape=None):
    """Convolution of `x` (batch, channels, rows, columns) with square filters, and a bias per filter.

    `pad` is Theano's border mode: 'half', 'valid' or a number of pixels.
    """
    shape = (filters, channels, side, side)
    w = params.weights(name + "_w", shape, channels * side * side)
    y = conv2d(x, w, input_shape, shape, border_mode=pad, subsample=(stride, stride))
    return y + per_channel(params.vector(name + "_b", filters)) if bias else y


def deconv(params, name, x, channels, filters, side, stride, rows, columns, bias=True, initial=None):
    """Transposed convolution: from `x` (batch, channels, ...) to (batch, filters, rows, columns), larger by `stride`.

    Rows and columns are such that a convolution with 'half' padding and this stride would lead back to the size of `x`;
    they may be symbolic.
    """
    shape = (channels, filters, side, side)
    fan_in = channels * side * side // stride ** 2
    w = params.get(name + "_w", initial) if initial else params.weights(name + "_w", shape, fan_in)
    y = conv2d_transpose(x, w, output_shape=(None, filters, rows, columns), filter_shape=shape, border_mode="half",
                         input_dilation=(stride, stride))
    return y + per_channel(params.vector(name + "_b", filters)) if bias else y


def max_pool(x, window=2, stride=None, pad=0, ignore_border=True):
    """Maxima over windows of `window` x `window` pixels, which overlap where `stride` is smaller."""
    stride = stride or window
    return pool_2d(x, (window, window), stride=(stride, stride), pad=(pad, pad), ignore_border=ignore_border)


def dense(params, name, x, n_in, n_out):
    """Fully connected layer on `x` (batch, n_in)."""
    w = params.weights(name + "_w", (n_in, n_out), n_in)
    return T.dot(x, w) + params.vector(name + "_b", n_out)


def cross_channel_normalisation(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Every value divided by a power of the sum of squares over its `n` neighbouring channels.

    Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012, section 3.3. The squares
    are written into the middle of zeros, so that neighbours exist at either end.
    """
    batch, channels, rows, columns = x.shape
    half = n // 2
    zeros = T.alloc(floats(0), batch, channels + 2 * half, rows, columns)
    squares = T.set_subtensor(zeros[:, half:half + channels], T.sqr(x))
    scale = k
    for i in range(n):
        scale += alpha * squares[:, i:i + channels]
    return x / scale ** beta


def batch_norm(params, name, x, channels):
    """Batch normalisation by Theano's own function, and the running averages that a test would use.

    Ioffe and Szegedy, Batch normalization: accelerating deep network training by reducing internal covariate shift,
    2015.
    """
    gamma, beta = params.vector(name + "_gamma", channels, 1.0), params.vector(name + "_beta", channels)
    mean, variance = theano.shared(floats(np.zeros(channels))), theano.shared(floats(np.ones(channels)))
    y, _, _, new_mean, new_variance = batch_normalization_train(x, gamma, beta, axes="spatial", running_mean=mean,
                                                                running_var=variance)
    params.updates += [(mean, new_mean), (variance, new_variance)]
    return y


def batch_norm_elementwise(params, name, x, channels, epsilon=1e-4):
    """Batch normalisation as it is written by hand."""
    gamma, beta = params.vector(name + "_gamma", channels, 1.0), params.vector(name + "_beta", channels)
    centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
    variance = T.sqr(centred).mean(axis=(0, 2, 3), keepdims=True)
    return centred / T.sqrt(variance + epsilon) * per_channel(gamma) + per_channel(beta)


def dropout(x, streams, rate=0.5):
    """Values set to zero at random, the others scaled up to keep the mean (Srivastava et al., Dropout, 2014)."""
    mask = streams.binomial(x.shape, p=1 - rate, dtype=theano.config.floatX)
    return x * mask / floats(1 - rate)


def global_average(x):
    """(batch, channels): the mean of each channel's pixels."""
    return x.mean(axis=(2, 3))


def scaled(width, *channels):
    """Channel counts of a network made `width` times as wide, at least one each."""
    counts = [max(1, int(round(width * c))) for c in channels]
    return counts if len(counts) > 1 else counts[0]


def side_after(side, window, stride, pad=0):
    """Rows (or columns) left by a convolution or pooling that leaves incomplete windows out."""
    return (side + 2 * pad - window) // stride + 1
