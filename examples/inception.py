"""GoogLeNet, made of inception blocks: Szegedy et al., Going deeper with convolutions, 2015.

Without its auxiliary classifiers.
"""
import theano.tensor as T

from layers import Parameters, conv, dense, global_average, max_pool, relu, scaled
from training import classifier

# Table 1 of the paper. Filters of a block: 1 x 1; reduction and 3 x 3; reduction and 5 x 5; 1 x 1 after pooling.
BLOCKS = {
    3: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    4: ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    5: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}


def block(params, name, x, channels, counts):
    """Four ways to look at the same images, side by side along the channels; returns them and how many these are."""
    n1, reduce3, n3, reduce5, n5, n_pool = counts

    def layer(part, x, channels, filters, side):
        return relu(conv(params, "%s_%s" % (name, part), x, channels, filters, side))

    ways = [layer("1x1", x, channels, n1, 1),
            layer("3x3", layer("3x3_reduce", x, channels, reduce3, 1), reduce3, n3, 3),
            layer("5x5", layer("5x5_reduce", x, channels, reduce5, 1), reduce5, n5, 5),
            layer("pool_proj", max_pool(x, 3, 1, pad=1), channels, n_pool, 1)]
    return T.concatenate(ways, axis=1), n1 + n3 + n5 + n_pool


def inception(batch=64, size=224, width=1.0, classes=1000, most_blocks=5):
    """A `Network` on images (batch, 3, size, size).

    Parameters
    ----------
    width : float
        Multiplies all channels.
    most_blocks : int
        Only so many blocks of each stage.
    """
    params = Parameters()
    images = T.tensor4("images")
    c1, c2 = scaled(width, 64, 192)
    x = relu(conv(params, "conv1", images, 3, c1, 7, stride=2, input_shape=(batch, 3, size, size)))
    x = max_pool(x, 3, 2, pad=1)
    x = relu(conv(params, "conv2_reduce", x, c1, c1, 1))
    x, channels = relu(conv(params, "conv2", x, c1, c2, 3)), c2
    for stage, blocks in BLOCKS.items():
        x = max_pool(x, 3, 2, pad=1)
        for letter, counts in zip("abcde", blocks[:most_blocks]):
            x, channels = block(params, "block%d%s" % (stage, letter), x, channels, scaled(width, *counts))
    scores = dense(params, "classes", global_average(x), channels, classes)
    return classifier(images, scores, params, (batch, 3, size, size), classes)
