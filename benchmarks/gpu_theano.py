"""A benchmarked process: one convolution or pooling on the GPU at a time, of stock Theano or of layoutopt; see `gpu.py`.

Argument: 'stock' or 'layoutopt'. Operands are in the GPU's memory, and results stay there.
"""
import sys

import numpy as np
import theano
from conv_theano import build, outputs_of
from serve import serve
from theano import tensor as T
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.signal.pool import MaxPoolGrad as StockMaxPoolGrad, Pool

from layoutopt.kernels import MaxPool, MaxPoolGrad

STOCK = sys.argv[1:] == ["stock"]


def resident(shape):
    """Random numbers of BC01 sizes `shape` in the GPU's memory, in the layout that this process computes in."""
    value = np.random.RandomState(0).uniform(-1, 1, shape).astype("float32")
    return theano.shared(value if STOCK else np.ascontiguousarray(value.transpose(1, 2, 3, 0)))


def prepare_conv(direction, layer):
    batch, channels, size, filters, filter_size, stride, pad = layer
    out = outputs_of(size, filter_size, stride, pad)
    shapes = dict(x=(batch, channels, size, size), w=(filters, channels, filter_size, filter_size), y=(batch, filters, out, out))
    operands = {"forward": "xw", "data gradient": "yw", "weight gradient": "xy"}[direction]
    values = [resident(shapes[name]) for name in operands]
    if not STOCK:
        return called(build(direction, size, filter_size, stride, pad)(*values))
    parameters = dict(imshp=shapes["x"], kshp=shapes["w"], border_mode=(pad, pad), subsample=(stride, stride), filter_flip=False)
    if direction == "forward":
        return called(AbstractConv2d(**parameters)(*values))
    if direction == "data gradient":
        return called(AbstractConv2d_gradInputs(**parameters)(values[1], values[0], T.constant([size, size])))
    return called(AbstractConv2d_gradWeights(**parameters)(*values, T.constant([filter_size, filter_size])))


def prepare_pool(direction, layer):
    batch, channels, size, window, stride = layer
    images, out = resident((batch, channels, size, size)), (size - window) // stride + 1
    hid = resident((batch, channels, out, out))
    if STOCK:
        pool, gradient = (lambda x: Pool(True)(x, (window, window), (stride, stride)),
                          lambda x, z, gz: StockMaxPoolGrad(True)(x, z, gz, (window, window), (stride, stride)))
    else:
        pool, gradient = MaxPool(window, stride, ceil_mode=False), MaxPoolGrad(window, stride, ceil_mode=False)
    if direction == "forward":
        return called(pool(images))
    maxima = theano.shared(np.asarray(theano.function([], pool(images))()))
    return called(gradient(images, maxima, hid))


def called(result):
    """A call that computes `result` and leaves it on the GPU."""
    on_gpu = theano.config.device != "cpu"
    function = theano.function([], theano.Out(result.transfer(None) if on_gpu else result, borrow=True))
    names = [node.op.__class__.__name__ for node in function.maker.fgraph.apply_nodes]
    if on_gpu and ("HostFromGpu" in names or "GpuFromHost" in names):
        raise RuntimeError("values travel between host and GPU: %s" % names)

    def call():
        function()

    return call


PREPARE = dict(conv=prepare_conv, pool=prepare_pool)

if __name__ == "__main__":
    if theano.config.device.startswith("cuda"):
        from gpu_events import Events
        clock = dict(timed=Events().timed)
    else:
        clock = {}
    serve(prepare=lambda family, **task: PREPARE[family](**task), **clock)
