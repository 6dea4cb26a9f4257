"""Seconds: what an op takes in either layout, and what a conversion takes.

A roofline in sums: operations over a share of peak, plus bytes over bandwidth, plus a call. A `Machine` says how fast
the machine is; the constants below, which say how well each op uses it, were fitted to 918 pairs of timings of
convolutions, 408 of poolings and 448 conversions (two cores with AVX-512, one and two threads, batches 1 to 500;
`docs/performance.md`). Plans depend on ratios alone, and these hold from machine to machine far better than seconds do.
What holds less well is measured by ``python -m layoutopt calibrate``: see `Speeds`.
"""
import os
import platform
from typing import NamedTuple

import theano

from layoutopt.kernels import base

from .constraints import AVG_POOL, AVG_POOL_GRADIENT, AVG_POOLS, FORWARD, IMAGE_GRADIENT, MAX_POOL, WEIGHT_GRADIENT
from .layout import BC01, C01B

# Theano's CorrMM: per image a gathering of columns (im2col) and a matrix product.
STOCK_IMAGE = 0.55e-6  # seconds an image takes besides
STOCK_GROUP = 1.0e-6  # and each further group of it: another product
GATHER = {FORWARD: 0.40e-9, WEIGHT_GRADIENT: 0.40e-9, IMAGE_GRADIENT: 0.33e-9}  # seconds per column element and core
PRODUCT_SHARE = 0.71  # of a core's peak: OpenBLAS on the columns of one image
PRODUCT_DEPTH = 2.0  # a matrix product of this depth runs at half of that
PRODUCT_SCALING = 0.4  # of a further core, where one image's product is what is shared out

# The c01b kernels. The time of a pixel's sums is counted in products: what they cost besides the products themselves.
IMAGE_LANES_SHARE, IMAGE_LANES_SUMS = 0.82, 6.0  # kernels/cpu/conv_batch_lanes.h
FEW_FILTERS = 1.2  # a tile of one filter spends 1.2 times the products' time on loads
FILTER_LANES_SHARE, FILTER_LANES_SUMS = 0.87, 27.0  # kernels/cpu/conv_filter_lanes.h
# kernels/cpu/conv_row_lanes.h: with at most so many products.
ROW_LANES_SHARE, ROW_LANES_SUMS, ROW_LANES_PRODUCTS = 0.82, 8.0, 500
# kernels/cpu/conv_pointwise.h: filters of one tap.
POINTWISE_SHARE, POINTWISE_SUMS = 0.85, 6.0
# kernels/cpu/conv_scatter.h, for a gradient: what adding a sum takes, in products, and the floats of a channel beyond which it is
# not used.
SCATTER_SHARE, SCATTER_SUMS, SCATTER_TARGETS = 0.95, 8.0, 128 * 1024
# kernels/cpu/conv_winograd.h: what the transforms of images, of outputs and of filters take, in multiply-adds of a vector, and
# the least flag, by the sizes of tile and filter, as told there; and the products of a tile.
WINOGRAD_PRICES = {(2, 3): (450.0, 330.0, 40.0, 2), (4, 3): (1500.0, 1400.0, 85.0, 4), (2, 5): (1200.0, 450.0, 200.0, 2),
                   (4, 5): (4500.0, 2800.0, 450.0, 4), (2, 7): (3500.0, 1500.0, 500.0, 2)}
# kernels/cpu/winograd_scatter.h, for image gradients: the first three of the same.
SCATTERED = "scattered"
WINOGRAD_SCATTERED = {(2, 5, SCATTERED): (700.0, 1900.0, 200.0), (4, 5, SCATTERED): (3500.0, 6400.0, 450.0),
                      (2, 7, SCATTERED): (3300.0, 4800.0, 500.0)}
WINOGRAD_SHARE = 0.88  # of peak, that the products reach
WINOGRAD_FILTERS, WINOGRAD_WIDTH = 1e6, 4  # bytes of transformed filters beyond which each block of so many vectors reads them from L3
WINOGRAD_WEIGHTS = {(2, 3): 2, (4, 3): 4, (4, 5): 2}  # those for weight gradients, with that flag, kernels/cpu/weight_winograd.h
# What a line of transformed gradients takes, the bytes beyond which more, and how many times that a line of transformed images.
WINOGRAD_LINE, WINOGRAD_CACHE, WINOGRAD_IMAGES = 17.0, 2.2e6, 1.3
WINOGRAD_PRODUCTS = {(2, 3): 4 ** 2, (4, 3): 6 ** 2, (2, 5): 7 ** 2, (4, 5): 11 ** 2, (2, 7): 10 ** 2}
WINOGRAD_MARGIN = 0.9  # it has to take less than this share of the direct kernel's time
WEIGHTS_SHARE, WEIGHTS_SUMS = 0.82, 6.4  # kernels/cpu/weight_acts.h
WEIGHTS_FEW_FILTERS = 3.3  # loads bound a dot tile of fewer than 4 filters
WEIGHTS_GROUP = 4e-6  # seconds a group takes besides
WORTH_A_THREAD = 1e6  # operations; of less than that, threads get uneven shares or none
# Reading, packing and writing, as shares of a core's bandwidth: images and outputs, and the filters.
IMAGE_LANES_TRAFFIC, FILTER_LANES_TRAFFIC = 6.0, 0.5
IMAGE_LANES_FILTERS, FILTER_LANES_FILTERS, WEIGHTS_FILTERS = 0.13, 0.5, 0.5

# Max-pooling: seconds per pixel and core, and what each further window that a pixel lies in adds.
STOCK_POOL, STOCK_POOL_OVERLAP = 0.70e-9, 0.30e-9
STOCK_POOL_GRADIENT, STOCK_POOL_GRADIENT_OVERLAP = 1.60e-9, 0.40e-9
STOCK_POOL_GRADIENT_MISSES = 2.7e-9  # where its three arrays are larger than a cache
STOCK_POOL_GRADIENT_FITS = 600e3  # bytes of images
# The same of a c01b kernel, per lane: at 16 images a core's vector.
C01B_POOL, C01B_POOL_OVERLAP = 0.04e-9, 0.05e-9
C01B_POOL_GRADIENT, C01B_POOL_GRADIENT_OVERLAP = 0.10e-9, 0.20e-9
# Average pooling: seconds per pixel and core, and per output; stock's gradient takes what its forward pass does. Of a c01b
# kernel again per lane, and what starting a row of vectors takes, in vectors.
STOCK_AVERAGE, STOCK_AVERAGE_OUTPUT = 0.85e-9, 5.8e-9
C01B_AVERAGE, C01B_AVERAGE_OUTPUT, C01B_AVERAGE_START = 0.055e-9, 0.36e-9, 0.5
C01B_AVERAGE_GRADIENT, C01B_AVERAGE_GRADIENT_START = 0.12e-9, 6.5

# Ops across channels: seconds of a row of one channel and core, of each vector in it, and of each channel of its windows besides.
ACROSS_ROW = 8e-9
ACROSS_VECTOR = {"sum": 1.2e-9, "norm": 3.7e-9, "undo": 7.0e-9}
ACROSS_CHANNEL = {"sum": 0.62e-9, "norm": 0.58e-9, "undo": 1.15e-9}
ACROSS_POWER = 9.5e-9  # of each vector where the power is none of those that roots give (kernels/cpu/power.h)
ACROSS_TRAFFIC = 2.0  # times the bytes: runs of a few kB

# Conversions of full vectors, as a share of a core's bandwidth. Images that fill no vector: seconds per pixel and core,
# however many they are; into c01b more where the target goes around the caches (kernels/cpu/transpose.h), in parts of lines.
CONVERSION_SHARE = 0.9
REST_TO_C01B, REST_STREAMED, REST_TO_BC01 = 4.5e-9, 9.5e-9, 1.7e-9
STREAMED = 2 << 20  # bytes
VIEW = 0.5e-6  # seconds of a conversion that moves nothing: less than a copy, and not to be made for nothing
# Of a core's bandwidth.
STRIDED_COPY_SHARE = 0.15  # numpy's copy of a transposed view, on one core

MEASURED_LANES = 16  # the vectors' width when the constants were measured

# A core's peak by what its vectors hold, where nothing is measured: 16 floats as one multiply-add a cycle at 3.9 GHz.
CORE_FLOPS = {16: 125e9, 8: 100e9, 4: 40e9}


class Speeds(NamedTuple):
    """How fast each family of ops runs on this machine, relative to what the constants of this file say."""

    stock_conv: float = 1.0
    convolution: float = 1.0
    weight_gradient: float = 1.0
    image_gradient: float = 1.0
    stock_pool: float = 1.0
    pool: float = 1.0
    conversion: float = 1.0


SPEED_OF = {FORWARD: "convolution", WEIGHT_GRADIENT: "weight_gradient", IMAGE_GRADIENT: "image_gradient"}


def cpu():
    """(model, lanes) of this machine's processor: its name, and how many floats its widest vectors hold."""
    fields = {}
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass  # not Linux
    flags = fields.get("flags", "").split()
    lanes = 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
    return fields.get("model name") or platform.processor() or platform.machine(), lanes


def cores():
    """Threads that OpenMP and BLAS take: OMP_NUM_THREADS, or as many as this process may run on."""
    try:
        return max(1, int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    except (KeyError, ValueError):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Machine(NamedTuple):
    """What the costs are computed from.

    threads : threads of the c01b kernels.
    images_at_once : threads that CorrMM and Pool share images out to (Theano's flag openmp).
    product_threads : threads of the matrix product, where images are not shared out.
    lanes : floats in a vector of the c01b kernels.
    core_flops : float32 operations a second of one core, multiply-adds as two.
    core_bandwidth : bytes a second of one core, read and written together, mostly from caches.
    bandwidth : the same of all cores, from memory.
    cache : bytes that stay in cache between ops.
    call : seconds that any op takes.
    caution : a c01b op is taken to be this much slower than predicted. Predictions are within 25% (one standard
        deviation); at 1.1 half as many sites lose as at 1, and all together take 0.3% longer.
    speeds : corrections, measured.
    winograd : Winograd's algorithm: 0 (not at all), 2 (where no digits are lost) or 4.
    """

    threads: int = 2
    images_at_once: int = 2
    product_threads: int = 2
    lanes: int = 16
    core_flops: float = 125e9
    core_bandwidth: float = 45e9
    bandwidth: float = 50e9
    cache: float = 16e6
    call: float = 2e-6
    caution: float = 1.1
    speeds: Speeds = Speeds()
    winograd: int = 2

    @classmethod
    def default(cls, simd="auto"):
        """This machine, as far as it can be read rather than measured.

        Parameters
        ----------
        simd : str
            The flag ``layoutopt.simd``.
        """
        _, widest = cpu()
        n = cores()
        threads = n if base.openmp_default() else 1
        return cls(threads=threads, images_at_once=n if theano.config.openmp else 1, product_threads=n,
                   lanes=base.SIMD_LANES[simd] or widest, core_flops=CORE_FLOPS[widest],
                   bandwidth=cls._field_defaults["core_bandwidth"] * 0.55 * n)

    # ---- convolutions

    def stock_conv_seconds(self, work):
        """Theano's CorrMM: for each image the columns are gathered, then multiplied, group by group.

        Parameters
        ----------
        work : ConvWork
        """
        depth = {FORWARD: work.taps, WEIGHT_GRADIENT: work.positions, IMAGE_GRADIENT: work.filters // work.groups}[work.kind]
        depth = max(1, depth)
        flops = 2.0 * work.filters * work.taps * work.positions
        multiplying = flops / (self.core_flops * PRODUCT_SHARE * depth / (depth + PRODUCT_DEPTH))
        if self.images_at_once == 1:
            multiplying /= 1 + PRODUCT_SCALING * (self.product_threads - 1)
        columns, filters = work.taps * work.groups * work.positions, work.taps * work.filters
        calls = STOCK_GROUP * (work.groups - 1)
        gathering = GATHER[work.kind] * columns
        copies = self.images_at_once if work.kind == WEIGHT_GRADIENT else 0  # each thread sums its own gradient
        if work.taps * work.groups > work.channels:
            copies += 1  # the flipped filters
        traffic = 4.0 * (2 * filters if work.kind == WEIGHT_GRADIENT else filters) / (2.5 * self.core_bandwidth)
        rounds = -(-work.batch // self.images_at_once)
        seconds = rounds * (STOCK_IMAGE + calls + gathering + multiplying + traffic)
        return self.call + (seconds + 4.0 * copies * filters / self.core_bandwidth) / self.speeds.stock_conv

    def c01b_conv_seconds(self, work):
        """The c01b kernels, by the same choices between them as in cpu/conv_tile.h; the nest without packing, which that
        has besides, is priced as images in the lanes.

        Parameters
        ----------
        work : ConvWork
        """
        bandwidth = self.core_bandwidth * self.threads
        pixels = 4.0 * work.batch * (work.channels * work.pixels + work.filters * work.positions)
        filters = 4.0 * work.taps * work.filters
        if work.kind == WEIGHT_GRADIENT:
            products = max(1, work.batch * work.positions)
            few = max(0, 1 / max(1, work.filters // work.groups) - 1 / 4)
            time = work.flops * (1 + WEIGHTS_SUMS / products + WEIGHTS_FEW_FILTERS * few) / WEIGHTS_SHARE
            moving = filters / (bandwidth * WEIGHTS_FILTERS) + pixels / (bandwidth * IMAGE_LANES_TRAFFIC)
            moving += WEIGHTS_GROUP * (work.groups - 1) / self.threads
            winograd = min((self._winograd_weights(work, *tiles) for tiles in work.tiles), default=time)
        else:
            nests = [self._correlation(work, pixels / bandwidth, filters / bandwidth)]
            nests += [self._scatter(work, pixels / bandwidth, filters / bandwidth)] if work.kind == IMAGE_GRADIENT else []
            time, moving = min(nests, key=lambda nest: self._computing(*nest))
            winograd = min((self._winograd(work, *tiles) for tiles in work.tiles), default=time)
        if winograd < WINOGRAD_MARGIN * time:
            time, moving = winograd, 0.0
        return self.call + self.caution * self._computing(time, moving) / getattr(self.speeds, SPEED_OF[work.kind])

    def _computing(self, operations, moving):
        """Seconds of so many operations at peak, and of moving."""
        threads = min(self.threads, max(1.0, operations / WORTH_A_THREAD))
        return operations / (threads * self.kernel_flops) + moving

    def _correlation(self, work, pixels, filters):
        """(operations at peak, seconds of packing); `pixels` and `filters` are seconds of moving them once."""
        forward = work.kind == FORWARD
        results = max(1, (work.filters if forward else work.channels) // work.groups)  # of a pixel, and products:
        products = max(1.0, work.taps if forward else work.taps * work.filters / (work.groups * results * work.strides))
        images, padding = self.padding(work.batch), self.padding(results)
        if work.taps * work.groups == work.channels:
            return (work.flops * (1 + POINTWISE_SUMS / products + FEW_FILTERS / results) / POINTWISE_SHARE,
                    pixels / IMAGE_LANES_TRAFFIC + filters / IMAGE_LANES_FILTERS)
        row = self.padding(int(work.batch * (work.positions if forward else work.pixels) ** 0.5))
        if row < images and products <= ROW_LANES_PRODUCTS and (forward or work.strides == 1):
            return (work.flops * row * (1 + ROW_LANES_SUMS / products + FEW_FILTERS / results) / ROW_LANES_SHARE,
                    pixels / IMAGE_LANES_TRAFFIC + filters / IMAGE_LANES_FILTERS)
        if padding * (1.03 + 60 / products) < images:
            return (work.flops * padding * (1 + FILTER_LANES_SUMS / products) / FILTER_LANES_SHARE,
                    pixels / FILTER_LANES_TRAFFIC + filters / FILTER_LANES_FILTERS)
        return (work.flops * images * (1 + IMAGE_LANES_SUMS / products + FEW_FILTERS / results) / IMAGE_LANES_SHARE,
                pixels / IMAGE_LANES_TRAFFIC + filters / IMAGE_LANES_FILTERS)

    def _scatter(self, work, pixels, filters):
        """The same for a gradient that source pixels scatter; infinite where a channel's targets leave the L2 cache."""
        phases = work.strides ** 0.5  # of the rows: with the channels, what there is to share out to threads
        if work.batch * work.pixels > SCATTER_TARGETS * phases:
            return float("inf"), 0.0
        vectors, items = -(-work.batch * work.positions // self.lanes), max(1.0, work.channels * phases)
        idle = -(-items // self.threads) * self.threads / items
        sums = 2.0 * self.lanes * vectors * work.groups * work.taps * idle
        return sums * (work.filters / work.groups + SCATTER_SUMS) / SCATTER_SHARE, pixels / IMAGE_LANES_TRAFFIC + filters

    def _winograd(self, work, algorithm, tiles):
        """Operations at peak for so many tiles of results in every channel; infinite where the flag does not allow it."""
        images, outputs, taps, allowed = WINOGRAD_PRICES.get(algorithm) or WINOGRAD_SCATTERED[algorithm] + (2,)
        if work.kind == IMAGE_GRADIENT and algorithm == (4, 5):
            allowed = 2  # which has no ties to break
        if allowed > self.winograd:
            return float("inf")
        channels, filters = work.channels / work.groups * work.strides, work.filters / work.groups
        if work.kind == IMAGE_GRADIENT:
            channels, filters = filters, channels
        vectors = -(-work.batch * tiles // self.lanes)
        # The taps that a phase of a stride lacks, in the mean; a product less for each (kernels/cpu/winograd_phases.h).
        lacking = algorithm[1] - (work.taps * work.groups / max(1, work.channels) / work.strides) ** 0.5
        products = (WINOGRAD_PRODUCTS[algorithm[:2]] ** 0.5 - lacking) ** 2 / WINOGRAD_SHARE
        of_group = vectors * (products * channels * filters + images * channels + outputs * filters)
        floats = WINOGRAD_PRODUCTS[algorithm[:2]] * channels * filters
        if SCATTERED not in algorithm and 4.0 * floats > WINOGRAD_FILTERS:
            of_group += -(-vectors // WINOGRAD_WIDTH) * floats
        return 2.0 * self.lanes * work.groups * (of_group + taps * channels * filters)

    def _winograd_weights(self, work, algorithm, tiles):
        """The same for a weight gradient, whose channels and filters are cut as kernels/cpu/weight_winograd.h does."""
        if WINOGRAD_WEIGHTS[algorithm] > self.winograd:
            return float("inf")
        products, width = WINOGRAD_PRODUCTS[algorithm], 4 * self.lanes
        vectors = -(-work.batch * tiles // self.lanes)

        def busiest(channel_parts, filter_parts):
            channels = work.channels / work.groups * work.strides / channel_parts
            filters = -(-work.filters // (work.groups * self.lanes)) * self.lanes / filter_parts
            misses = max(1.0, 4.0 * products * (channels * filters + width * (channels + filters)) / WINOGRAD_CACHE)
            line = WINOGRAD_LINE * products
            vector = products * channels * filters + line * misses * (WINOGRAD_IMAGES * channels + filters)
            items = -(-work.groups * channel_parts * filter_parts // self.threads)
            return items * (vectors * vector + line * channels * filters / self.lanes)

        cuts = [1, 2, 4, 8, 16]
        return 2.0 * self.lanes * self.threads * min(busiest(i, j) for i in cuts for j in cuts
                                                     if 6 * i <= work.channels * work.strides and 4 * self.lanes * j <= work.filters or i == j == 1)

    def padding(self, count):
        """Lanes computed for each lane wanted."""
        return -(-count // self.lanes) * self.lanes / count if count > 0 else 1.0

    @property
    def kernel_flops(self):
        """Operations a second of one core in the c01b kernels; below 8 lanes vectors are what limits them."""
        return self.core_flops * min(1.0, self.lanes / 8)

    # ---- pooling

    def stock_pool_seconds(self, work):
        """Theano's Pool and its gradients.

        Parameters
        ----------
        work : PoolWork
        """
        if work.kind in AVG_POOLS:
            pixel = STOCK_AVERAGE + STOCK_AVERAGE_OUTPUT * work.outputs
        elif work.kind == MAX_POOL:
            pixel = STOCK_POOL + STOCK_POOL_OVERLAP * work.overlap
        else:
            pixel = STOCK_POOL_GRADIENT + STOCK_POOL_GRADIENT_OVERLAP * work.overlap
            pixel += STOCK_POOL_GRADIENT_MISSES if work.bytes > STOCK_POOL_GRADIENT_FITS else 0
        return self.call + work.batch * work.pixels * pixel / (self.images_at_once * self.speeds.stock_pool)

    def c01b_pool_seconds(self, work):
        """The c01b kernels: a vector takes the same time however many images are in it.

        Parameters
        ----------
        work : PoolWork
        """
        vectors = max(1, -(-work.batch // self.lanes))
        if work.kind == AVG_POOL:
            slot, arrays = (C01B_AVERAGE + C01B_AVERAGE_OUTPUT * work.outputs) * (1 + C01B_AVERAGE_START / vectors), 1.25
        elif work.kind == AVG_POOL_GRADIENT:
            slot, arrays = C01B_AVERAGE_GRADIENT * (1 + C01B_AVERAGE_GRADIENT_START / vectors), 1.25
        elif work.kind == MAX_POOL:
            slot, arrays = C01B_POOL + C01B_POOL_OVERLAP * work.overlap, 1.25
        else:
            slot, arrays = C01B_POOL_GRADIENT + C01B_POOL_GRADIENT_OVERLAP * work.overlap, 2.5
        slots = work.batch * self.padding(work.batch) * work.pixels * MEASURED_LANES / self.lanes
        seconds = max(slots * slot / self.threads, self._memory(arrays * work.bytes))
        return self.call + self.caution * seconds / self.speeds.pool

    # ---- normalisation across channels

    def across_channels_seconds(self, work):
        """CrossMapNorm and its kin.

        Parameters
        ----------
        work : AcrossWork
        """
        vector = ACROSS_VECTOR[work.kind] + ACROSS_CHANNEL[work.kind] * min(work.size, work.channels)
        if not work.rooted:
            vector += ACROSS_POWER
        row = ACROSS_ROW + -(-work.inner // self.lanes) * vector
        return self.call + max(work.outer * work.channels * row / self.threads, self._memory(ACROSS_TRAFFIC * work.bytes))

    # ---- conversions

    def conversion_seconds(self, size, batch=128, to=C01B):
        """ToC01B or ToBC01: reads and writes `size` bytes once, by vectors of images and what is left of them.

        Parameters
        ----------
        size : float
            Bytes.
        batch : int
            The axis that moves; where it is 1, the conversion is a plain copy.
        to : {C01B, BC01}
        """
        if batch <= 1:
            return self.call + 2 * size / (2 * self.core_bandwidth * self.speeds.conversion)
        rest = batch % self.lanes
        seconds = 2 * size * (1 - rest / batch) / (self.core_bandwidth * CONVERSION_SHARE)
        if rest:
            pixel = REST_TO_BC01 if to == BC01 else REST_TO_C01B if size < STREAMED else REST_STREAMED
            seconds += pixel * size / (4 * batch)
        return self.call + max(seconds / self.threads, self._memory(2 * size)) / self.speeds.conversion

    def strided_copy_seconds(self, size):
        """numpy's copy of a transposed view."""
        return self.call + 2 * size / (self.core_bandwidth * STRIDED_COPY_SHARE)

    def _memory(self, size):
        """Seconds for `size` bytes that come from memory; nothing for those that a cache holds."""
        return size / self.bandwidth if size > self.cache else 0.0


class ConvWork(NamedTuple):
    """The size of one convolution, or either of its gradients, in counts.

    kind : FORWARD, WEIGHT_GRADIENT or IMAGE_GRADIENT.
    batch, channels, filters : as they are called.
    taps : channels of a group * filter rows * filter columns.
    positions : output rows * output columns.
    pixels : input rows * input columns.
    strides : of the rows times of the columns.
    groups : into which channels and filters are cut.
    tiles : what Winograd's algorithm could cut the results into; see `winograd_tiles`.
    """

    kind: str
    batch: int
    channels: int
    filters: int
    taps: int
    positions: int
    pixels: int
    strides: int = 1
    groups: int = 1
    tiles: tuple = ()

    @property
    def flops(self):
        return 2.0 * self.batch * self.filters * self.taps * self.positions


def winograd_tiles(kind, taps, stride, image, output):
    """(((size, taps), count), ...): the tiles that Winograd's algorithm could cut the results of a convolution into.

    ((size, taps, SCATTERED), count): tiles of its outputs, to scatter an image gradient from.

    Parameters
    ----------
    kind : FORWARD, WEIGHT_GRADIENT or IMAGE_GRADIENT
    taps, stride, image, output : (rows, columns)
        Of the filters, of the convolution, of its images and of its outputs.
    """
    longest = [-(-t // s) for t, s in zip(taps, stride)]  # of the phases that a stride cuts filters to
    if longest[0] != longest[1] or (kind == IMAGE_GRADIENT and tuple(stride) != (1, 1)):
        return ()
    rows, columns = image if kind == IMAGE_GRADIENT else output
    algorithms = WINOGRAD_WEIGHTS if kind == WEIGHT_GRADIENT else WINOGRAD_PRICES
    grids = [(name, rows, columns) for name in algorithms]
    if kind == IMAGE_GRADIENT:
        grids += [(name, *output) for name in WINOGRAD_SCATTERED]
    return tuple((name, -(-rows // name[0]) * -(-columns // name[0])) for name, rows, columns in grids if name[1] == longest[0])


class PoolWork(NamedTuple):
    """The size of one pooling, or its gradient.

    kind : one of POOLS; a second derivative counts as a gradient.
    pixels : channels * rows * columns of the images.
    overlap : windows that a pixel lies in.
    outputs : windows, as a share of the pixels.
    """

    kind: str
    batch: int
    pixels: int
    overlap: float = 1.0
    outputs: float = 0.25

    @property
    def bytes(self):
        return 4.0 * self.batch * self.pixels


class AcrossWork(NamedTuple):
    """The size of an op across channels, on an array (outer, channels, inner).

    kind : "sum", "norm" or "undo".
    size : channels of a window.
    rooted : whether what is divided by takes roots alone.
    """

    kind: str
    outer: int
    channels: int
    inner: int
    size: int
    rooted: bool = True

    @property
    def bytes(self):
        """Read and written."""
        return (12.0 if self.kind == "undo" else 8.0) * self.outer * self.channels * self.inner
