"""AlexNet: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012.

In one tower, as the second tower was for want of memory.
"""
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStreams

from layers import Parameters, conv, cross_channel_normalisation, dense, dropout, max_pool, relu, scaled, side_after
from training import classifier


def alexnet(batch=128, size=227, width=1.0, classes=1000):
    """A `Network` on images (batch, 3, size, size); `width` multiplies all channels."""
    params, streams = Parameters(), MRG_RandomStreams(1)
    c1, c2, c3, c4, c5, hidden = scaled(width, 96, 256, 384, 384, 256, 4096)
    images = T.tensor4("images")

    x = relu(conv(params, "conv1", images, 3, c1, 11, stride=4, pad="valid", input_shape=(batch, 3, size, size)))
    x = max_pool(cross_channel_normalisation(x), 3, 2)
    x = relu(conv(params, "conv2", x, c1, c2, 5))
    x = max_pool(cross_channel_normalisation(x), 3, 2)
    x = relu(conv(params, "conv3", x, c2, c3, 3))
    x = relu(conv(params, "conv4", x, c3, c4, 3))
    x = relu(conv(params, "conv5", x, c4, c5, 3))
    x = max_pool(x, 3, 2)

    side = side_after(size, 11, 4)
    for _ in range(3):
        side = side_after(side, 3, 2)
    x = dropout(relu(dense(params, "fc6", x.flatten(2), c5 * side * side, hidden)), streams)
    x = dropout(relu(dense(params, "fc7", x, hidden, hidden)), streams)
    scores = dense(params, "fc8", x, hidden, classes)
    return classifier(images, scores, params, (batch, 3, size, size), classes)
