"""Seconds on a GPU: what an op takes in either layout, and what a conversion takes.

The counterpart of `rewrites.cost.Machine`, with the same methods. The constants were measured on an H200
(`docs/performance.md`); plans depend on ratios alone, and these are alike on GPUs of one make.
"""
from typing import NamedTuple, Tuple

from .constraints import FORWARD, IMAGE_GRADIENT, WEIGHT_GRADIENT
from .layout import C01B

# Operations a second of our kernels, by what computes them: forward, gradient for the images, for the weights.
RATES = {
    "tf32 wgmma": (250e12, 240e12, 165e12),  # products of single TF32 numbers, compute capability 9.0
    "tf32": (175e12, 165e12, 150e12),  # the same from 8.0 on
    "wgmma": (97e12, 95e12, 73e12),  # float32 as three products of TF32 numbers, 9.0
    "tensor": (62e12, 60e12, 58e12),  # the same from 8.0 on
    "portable": (10e12, 10e12, 8e12),  # the kernels in libgpuarray's dialect, estimated
}
_COLUMN = {FORWARD: 0, IMAGE_GRADIENT: 1, WEIGHT_GRADIENT: 2}

# Theano's GpuCorrMM: for each image two launches, columns gathered through memory, a product.
STOCK_IMAGE = 7e-6
STOCK_RATE = 25e12
# cuDNN, where Theano uses it.
CUDNN_RATE = 50e12

POOL_SHARE, STOCK_POOL_SHARE = 0.8, 0.4  # of the bandwidth
ACROSS_SHARE = 0.6  # of the bandwidth
LINE = 8  # floats that memory is read by
STRIDED_COPY_SHARE = 0.15  # libgpuarray's copy of a transposed view


class GpuMachine(NamedTuple):
    """A GPU.

    rates : operations a second of the c01b kernels, a row of `RATES`.
    cudnn : whether Theano's convolutions are cuDNN's.
    bandwidth : bytes a second, read and written together.
    call : seconds that any op takes, its launch included.
    caution : as in `rewrites.cost.Machine`.
    """

    rates: Tuple[float, float, float] = RATES["tensor"]
    cudnn: bool = False
    bandwidth: float = 3.7e12
    call: float = 8e-6
    caution: float = 1.1

    def stock_conv_seconds(self, work):
        """GpuCorrMM or cuDNN; `work` is a `rewrites.cost.ConvWork`."""
        traffic = self._traffic(4.0 * work.batch * (work.channels * work.pixels + work.filters * work.positions))
        if self.cudnn:
            return self.call + work.flops / CUDNN_RATE + traffic
        columns = 4.0 * work.batch * work.taps * work.groups * work.positions  # written, then read
        return self.call + work.batch * STOCK_IMAGE + work.flops / STOCK_RATE + self._traffic(2 * columns) + traffic

    def c01b_conv_seconds(self, work):
        """The direct kernels: `work` is a `rewrites.cost.ConvWork`."""
        traffic = self._traffic(4.0 * work.batch * (work.channels * work.pixels + work.filters * work.positions))
        return self.call + self.caution * max(work.flops / self.rates[_COLUMN[work.kind]], traffic)

    def stock_pool_seconds(self, work):
        """GpuPool and its gradient; `work` is a `rewrites.cost.PoolWork`."""
        return self.call + self._traffic(2.5 * work.bytes) / STOCK_POOL_SHARE

    def c01b_pool_seconds(self, work):
        """The c01b kernels; `work` is a `rewrites.cost.PoolWork`."""
        return self.call + self.caution * self._traffic(2.5 * work.bytes) / POOL_SHARE

    def across_channels_seconds(self, work):
        """CrossMapNorm and its kin; `work` is a `rewrites.cost.AcrossWork`. Threads beside each other read what lies side
        by side: of a short inner axis, parts of lines."""
        lines = -(-work.inner // LINE) * LINE / work.inner if work.inner else 1.0
        return self.call + self._traffic(lines * work.bytes) / ACROSS_SHARE

    def conversion_seconds(self, size, batch=128, to=C01B):
        """ToC01B or ToBC01 of `size` bytes, read and written once."""
        return self.call + self._traffic(2 * size)

    def strided_copy_seconds(self, size):
        """A copy of a transposed view of `size` bytes."""
        return self.call + self._traffic(2 * size) / STRIDED_COPY_SHARE

    def _traffic(self, size):
        return size / self.bandwidth


def rates_of(kind, compute, tf32):
    """The row of `RATES` that a GPU's kernels reach.

    Parameters
    ----------
    kind : {'cuda', 'opencl'}
    compute : int
        Compute capability times 10. wgmma is of 9.0 alone.
    tf32 : bool
        Products of single TF32 numbers are allowed.
    """
    if kind != "cuda" or compute < 80:
        return RATES["portable"]
    if compute == 90:
        return RATES["tf32 wgmma" if tf32 else "wgmma"]
    return RATES["tf32" if tf32 else "tensor"]
