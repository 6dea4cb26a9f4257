"""FCN-8s: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015.

A class for every pixel, of images of any size: rows and columns are symbolic throughout.
"""
import numpy as np
import theano.tensor as T

from layers import Parameters, conv, deconv, relu, scaled
from training import Network, Objective, normal
from vgg import features


def bilinear(channels, stride):
    """Filters (channels, channels, side, side) whose transposed convolution interpolates each channel for itself."""
    line = 1 - np.abs(np.arange(1 - stride, stride)) / stride
    filters = np.zeros((channels, channels, line.size, line.size))
    filters[range(channels), range(channels)] = np.outer(line, line)
    return filters


def upsample(params, name, x, channels, stride, like):
    """`x` enlarged to the rows and columns of `like`, by a transposed convolution that starts out bilinear."""
    return deconv(params, name, x, channels, channels, 2 * stride - 1, stride, like.shape[2], like.shape[3], bias=False,
                  initial=lambda: bilinear(channels, stride))


def pixel_scores(params, images, width, classes):
    """Scores (batch, classes, rows, columns): from VGG-16's features at 1/8, 1/16 and 1/32, enlarged and added."""
    _, _, (at8, n8), (at16, n16), (at32, n32) = features(params, images, width, ignore_border=False)
    hidden = scaled(width, 4096)
    x = relu(conv(params, "fc6", at32, n32, hidden, 7))
    x = relu(conv(params, "fc7", x, hidden, hidden, 1))
    scores = conv(params, "score32", x, hidden, classes, 1)
    scores = upsample(params, "up32", scores, classes, 2, like=at16) + conv(params, "score16", at16, n16, classes, 1)
    scores = upsample(params, "up16", scores, classes, 2, like=at8) + conv(params, "score8", at8, n8, classes, 1)
    return upsample(params, "up8", scores, classes, 8, like=images)


def log_softmax(scores):
    """Logarithms of the class probabilities, along axis 1."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - T.log(T.exp(scores).sum(axis=1, keepdims=True))


def fcn(batch=16, size=224, width=1.0, classes=21):
    """A `Network` on images (batch, 3, rows, columns); only its random minibatches have a size, `size` x 3/4 `size`."""
    params = Parameters()
    images, labels = T.tensor4("images"), T.itensor3("labels")
    log_probabilities = log_softmax(pixel_scores(params, images, width, classes))
    right = T.eq(T.arange(classes).dimshuffle("x", 0, "x", "x"), labels.dimshuffle(0, "x", 1, 2))
    loss = -(log_probabilities * right).sum(axis=1).mean()

    def minibatch(rng):
        rows, columns = size, 3 * size // 4
        return [normal(rng, (batch, 3, rows, columns)), rng.randint(0, classes, (batch, rows, columns)).astype("int32")]

    return Network([images, labels], [Objective(loss, params.all)], params.updates, minibatch)
