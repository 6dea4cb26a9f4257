"""VGG-16: Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2015."""
import theano.tensor as T

from layers import Parameters, conv, dense, max_pool, relu, scaled
from training import classifier

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


def features(params, x, width, input_shape=None, ignore_border=True):
    """The five stages of 3 x 3 convolutions, each halved by pooling; a list of (pooled images, channels)."""
    channels, pooled = 3, []
    for stage, (filters, n) in enumerate(STAGES, 1):
        filters = scaled(width, filters)
        for i in range(1, n + 1):
            x = relu(conv(params, "conv%d_%d" % (stage, i), x, channels, filters, 3, input_shape=input_shape))
            channels, input_shape = filters, None
        x = max_pool(x, 2, ignore_border=ignore_border)
        pooled.append((x, channels))
    return pooled


def vgg16(batch=64, size=224, width=1.0, classes=1000):
    """A `Network` on images (batch, 3, size, size), the size a multiple of 32; `width` multiplies all channels."""
    params = Parameters()
    images = T.tensor4("images")
    x, channels = features(params, images, width, (batch, 3, size, size))[-1]
    hidden = scaled(width, 4096)
    x = relu(dense(params, "fc6", x.flatten(2), channels * (size // 32) ** 2, hidden))
    x = relu(dense(params, "fc7", x, hidden, hidden))
    scores = dense(params, "fc8", x, hidden, classes)
    return classifier(images, scores, params, (batch, 3, size, size), classes)
