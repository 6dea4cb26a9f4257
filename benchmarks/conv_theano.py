"""A benchmarked process: one convolution or pooling op of layoutopt at a time; see `layers.py`. Argument: as layoutopt.winograd."""
import sys

import numpy as np
import theano
from serve import serve
from theano import tensor as T

from layoutopt.kernels import FilterActs, ImageActs, MaxPool, MaxPoolGrad, WeightActs
from layoutopt.kernels.base import configure
from layoutopt.kernels.geometry import conv_outputs
from layoutopt.kernels.relayout import to_c01b


def outputs_of(size, filter_size, stride, pad):
    return conv_outputs(size, filter_size, (pad, pad), stride, False)


def build(direction, size, filter_size, stride, pad):
    """The op as a function of its two operands."""
    parameters = dict(pad=pad, stride=stride, ceil_mode=False)
    return {
        "forward": lambda x, w: FilterActs(**parameters)(x, w),
        "data gradient": lambda y, w: ImageActs(**parameters)(y, w, T.constant([size, size])),
        "weight gradient": lambda x, y: WeightActs(**parameters)(x, y, T.constant([filter_size, filter_size]))[0],
    }[direction]


def prepare_conv(direction, layer):
    batch, channels, size, filters, filter_size, stride, pad = layer
    out = outputs_of(size, filter_size, stride, pad)
    shapes = dict(x=(channels, size, size, batch), w=(channels, filter_size, filter_size, filters),
                  y=(filters, out, out, batch))
    operands = {"forward": "xw", "data gradient": "yw", "weight gradient": "xy"}[direction]
    return called(build(direction, size, filter_size, stride, pad), [random(shapes[name]) for name in operands])


def prepare_pool(direction, layer):
    batch, channels, size, window, stride = layer
    images = random((channels, size, size, batch))
    pool = MaxPool(window, stride, ceil_mode=False)
    if direction == "forward":
        return called(pool, [images])
    x = T.TensorType("float32", [False] * 4)()
    maxima = theano.function([x], pool(x))(images)
    return called(MaxPoolGrad(window, stride, ceil_mode=False), [images, maxima, random(maxima.shape)])


def prepare_conversion(direction, layer):
    batch, channels, size = layer
    images = random((batch, channels, size, size))
    if direction == "to c01b":
        return called(to_c01b, [images])
    target = np.empty(images.transpose(1, 2, 3, 0).shape, "float32")
    return lambda: np.copyto(target, images.transpose(1, 2, 3, 0))  # numpy's strided copy, to compare with


def random(shape):
    return np.random.RandomState(0).uniform(-1, 1, shape).astype("float32")


def called(op, values):
    """A call of the compiled op on these values, without copies."""
    variables = [T.TensorType("float32", [False] * 4)() for _ in values]
    function = theano.function(variables, theano.Out(op(*variables), borrow=True))
    function.trust_input = True

    def call():
        function(*values)

    return call


PREPARE = dict(conv=prepare_conv, pool=prepare_pool, conversion=prepare_conversion)

if __name__ == "__main__":
    configure(winograd=sys.argv[1])
    serve(prepare=lambda family, **task: PREPARE[family](**task))
