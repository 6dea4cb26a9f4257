"""DCGAN: Radford, Metz and Chintala, Unsupervised representation learning with deep convolutional generative
adversarial networks, 2016.
"""
import theano.tensor as T

from layers import Parameters, batch_norm_elementwise, conv, deconv, dense, relu, scaled
from training import Network, Objective, normal

SMALLEST = 4  # rows and columns of the images that the generator starts from and the discriminator ends with


def channels_by_size(size, width):
    """[(4, widest), ..., (size / 2, narrowest)]: channels of the hidden images by their size."""
    sizes = [SMALLEST]
    while 2 * sizes[-1] < size:
        sizes.append(2 * sizes[-1])
    return [(side, scaled(width, 64 * size // side)) for side in sizes]


def generator(params, noise, n_noise, size, width):
    """Images (batch, 3, size, size) in [-1, 1] from noise (batch, n_noise), by transposed convolutions."""
    (side, channels), *larger = channels_by_size(size, width)
    x = dense(params, "project", noise, n_noise, channels * side * side)
    x = x.reshape((noise.shape[0], channels, side, side))
    x = relu(batch_norm_elementwise(params, "project_bn", x, channels))
    for side, filters in larger:
        x = deconv(params, "deconv%d" % side, x, channels, filters, 5, 2, side, side, bias=False)
        x = relu(batch_norm_elementwise(params, "deconv%d_bn" % side, x, filters))
        channels = filters
    return T.tanh(deconv(params, "deconv%d" % size, x, channels, 3, 5, 2, size, size))


def discriminator(params, x, size, width):
    """How real each image looks, (batch, 1): positive for real."""
    channels, input_shape = 3, (None, 3, size, size)
    for side, filters in reversed(channels_by_size(size, width)):
        x = conv(params, "conv%d" % side, x, channels, filters, 5, stride=2, input_shape=input_shape)
        if input_shape is None:
            x = batch_norm_elementwise(params, "conv%d_bn" % side, x, filters)
        x, channels, input_shape = relu(x, 0.2), filters, None
    return dense(params, "real", x.flatten(2), channels * SMALLEST ** 2, 1)


def dcgan(batch=128, size=64, width=1.0, n_noise=100):
    """Generator and discriminator as a `Network` of two objectives; the size is 8, 16, 32 and so on.

    The logarithm of a logistic function is a softplus: -log(sigmoid(s)) = softplus(-s).
    """
    learns_to_draw, learns_to_tell = Parameters(1), Parameters(2)
    noise, images = T.matrix("noise"), T.tensor4("images")
    drawn = generator(learns_to_draw, noise, n_noise, size, width)
    real = discriminator(learns_to_tell, images, size, width)
    fake = discriminator(learns_to_tell, drawn, size, width)
    tell = T.nnet.softplus(-real).mean() + T.nnet.softplus(fake).mean()
    draw = T.nnet.softplus(-fake).mean()

    def minibatch(rng):
        return [normal(rng, (batch, n_noise)), normal(rng, (batch, 3, size, size))]

    objectives = [Objective(tell, learns_to_tell.all), Objective(draw, learns_to_draw.all)]
    return Network([noise, images], objectives, [], minibatch)
