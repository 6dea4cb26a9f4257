"""All-CNN-C: Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for simplicity: the all convolutional net, 2015.

Convolutions of stride 2 take the place of pooling; dropout on the images and after each of them.
"""
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStreams

from layers import Parameters, conv, dropout, global_average, relu, scaled
from training import classifier


def allconv(batch=128, size=32, width=1.0, classes=10):
    """A `Network` on images (batch, 3, size, size); `width` multiplies the hidden channels."""
    params, streams = Parameters(), MRG_RandomStreams(1)
    narrow, wide = scaled(width, 96, 192)
    images = T.tensor4("images")

    x = dropout(images, streams, 0.2)
    x = relu(conv(params, "conv1", x, 3, narrow, 3, input_shape=(batch, 3, size, size)))
    x = relu(conv(params, "conv2", x, narrow, narrow, 3))
    x = relu(conv(params, "conv3", x, narrow, narrow, 3, stride=2))
    x = dropout(x, streams)
    x = relu(conv(params, "conv4", x, narrow, wide, 3))
    x = relu(conv(params, "conv5", x, wide, wide, 3))
    x = relu(conv(params, "conv6", x, wide, wide, 3, stride=2))
    x = dropout(x, streams)
    x = relu(conv(params, "conv7", x, wide, wide, 3, pad="valid"))
    x = relu(conv(params, "conv8", x, wide, wide, 1))
    x = relu(conv(params, "conv9", x, wide, classes, 1))
    return classifier(images, global_average(x), params, (batch, 3, size, size), classes)
