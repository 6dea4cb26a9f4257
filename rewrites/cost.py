"""Seconds: what an op takes in either layout, and what a conversion takes.

A roofline: operations over throughput plus bytes over bandwidth, with shares of peak from the measurements in
``docs/performance.md``. Absolute figures depend on the machine; plans depend on ratios alone, which hold from machine to
machine far better.
"""
from typing import NamedTuple


class Machine(NamedTuple):
    """What the costs are computed from; figures for two AVX-512 cores.

    flops : float32 operations a second, all threads.
    bandwidth : bytes a second, read and written together.
    call : seconds that any op takes.
    lanes : images a vector holds.
    """

    flops: float = 230e9
    bandwidth: float = 30e9
    call: float = 2e-6
    lanes: int = 16
    # Shares of peak and of bandwidth: Theano's convolution is a matrix product per image over gathered columns.
    stock_share: float = 0.55
    stock_pool_seconds_per_pixel: float = 2.5e-9
    direct_share: float = 0.75
    strided_copy_share: float = 0.25

    def conversion_seconds(self, size):
        """Reads and writes `size` bytes once."""
        return self.call + 2 * size / self.bandwidth

    def strided_copy_seconds(self, size):
        return self.call + 2 * size / (self.bandwidth * self.strided_copy_share)

    def stock_conv_seconds(self, work):
        """Theano's CorrMM: gathers each image's columns (written and read), then multiplies.

        Parameters
        ----------
        work : ConvWork
        """
        columns = 4 * work.batch * work.taps * work.positions
        return self.call + work.flops / (self.flops * self.stock_share) + 3 * columns / self.bandwidth

    def c01b_conv_seconds(self, work):
        """The direct kernels: reads and writes each array once, computes at a share of peak that falls with the batch."""
        share = self.direct_share * self.batch_share(work.batch)
        return self.call + max(work.flops / (self.flops * share), work.bytes / self.bandwidth)

    def batch_share(self, batch):
        """How much of the vectors a batch fills."""
        if batch < 1:
            return 1.0
        vectors = -(-batch // self.lanes)
        return batch / (vectors * self.lanes)

    def stock_pool_seconds(self, pixels):
        return self.call + pixels * self.stock_pool_seconds_per_pixel

    def c01b_pool_seconds(self, size):
        return self.call + size / self.bandwidth


class ConvWork(NamedTuple):
    """The size of one convolution (or either of its gradients), in counts."""

    batch: int
    channels: int
    filters: int
    taps: int  # channels * filter rows * filter columns
    positions: int  # output rows * output columns
    pixels: int  # input rows * input columns

    @property
    def flops(self):
        return 2.0 * self.batch * self.filters * self.taps * self.positions

    @property
    def bytes(self):
        return 4.0 * (self.batch * (self.channels * self.pixels + self.filters * self.positions) + self.taps * self.filters)
