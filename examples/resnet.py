"""ResNet-50: He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016."""
import theano.tensor as T

from layers import Parameters, batch_norm, conv, dense, global_average, max_pool, relu, scaled
from training import classifier


def normalised(params, name, x, channels, filters, side, stride=1, input_shape=None):
    """Convolution and batch normalisation, whose shift makes a bias superfluous."""
    x = conv(params, name, x, channels, filters, side, stride, bias=False, input_shape=input_shape)
    return batch_norm(params, name + "_bn", x, filters)


def bottleneck(params, name, x, channels, narrow, stride):
    """relu(x + f(x)) with f of three convolutions, the middle one narrow; returns it and its channels, 4 * narrow."""
    y = relu(normalised(params, name + "_1", x, channels, narrow, 1, stride))
    y = relu(normalised(params, name + "_2", y, narrow, narrow, 3))
    y = normalised(params, name + "_3", y, narrow, 4 * narrow, 1)
    if stride != 1 or channels != 4 * narrow:
        x = normalised(params, name + "_shortcut", x, channels, 4 * narrow, 1, stride)
    return relu(x + y), 4 * narrow


def resnet50(batch=32, size=224, width=1.0, classes=1000, blocks=(3, 4, 6, 3)):
    """A `Network` on images (batch, 3, size, size).

    Parameters
    ----------
    width : float
        Multiplies all channels.
    blocks : tuple of int
        Residual blocks of each stage; (3, 4, 23, 3) is ResNet-101.
    """
    params = Parameters()
    images = T.tensor4("images")
    channels = scaled(width, 64)
    x = relu(normalised(params, "conv1", images, 3, channels, 7, 2, (batch, 3, size, size)))
    x = max_pool(x, 3, 2, pad=1)
    for stage, n in enumerate(blocks):
        narrow = scaled(width, 64 * 2 ** stage)
        for i in range(n):
            stride = 2 if stage > 0 and i == 0 else 1
            x, channels = bottleneck(params, "stage%d_%d" % (stage + 2, i + 1), x, channels, narrow, stride)
    scores = dense(params, "classes", global_average(x), channels, classes)
    return classifier(images, scores, params, (batch, 3, size, size), classes)
