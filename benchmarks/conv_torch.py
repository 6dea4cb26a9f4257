"""A benchmarked process: one convolution or pooling of PyTorch at a time, in its better memory format; see `layers.py`."""
import os

import torch
from serve import serve
from torch.nn import functional as F
from torch_training import quickest

MASKS = {"data gradient": [True, False, False], "weight gradient": [False, True, False]}


def conv(direction, layer, memory_format):
    batch, channels, size, filters, filter_size, stride, pad = layer
    x = random((batch, channels, size, size), memory_format)
    w = random((filters, channels, filter_size, filter_size), memory_format)
    if direction == "forward":
        return lambda: F.conv2d(x, w, None, stride, pad)
    y = torch.rand_like(F.conv2d(x, w, None, stride, pad))
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(y, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, MASKS[direction])


def pool(direction, layer, memory_format):
    batch, channels, size, window, stride = layer
    x = random((batch, channels, size, size), memory_format)
    if direction == "forward":
        return lambda: F.max_pool2d(x, window, stride)
    z, places = F.max_pool2d(x, window, stride, return_indices=True)
    gz = torch.rand_like(z)
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return lambda: backward(gz, x, [window] * 2, [stride] * 2, [0, 0], [1, 1], False, places)


def random(shape, memory_format):
    return (torch.rand(shape) * 2 - 1).contiguous(memory_format=memory_format)


def prepare(family, direction, layer):
    make = dict(conv=conv, pool=pool)[family]
    call = quickest([make(direction, layer, form) for form in (torch.contiguous_format, torch.channels_last)])

    def step():
        call()

    return step


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    serve(prepare=prepare)
