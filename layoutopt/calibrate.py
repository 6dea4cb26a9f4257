"""Measures what the costs are computed from, and keeps it for the optimizer to find.

    python -m layoutopt calibrate

A dozen small programs run in either layout; how much faster or slower they are than `rewrites.cost` says goes into a
`Machine`, which is kept in a file (`layoutopt.kept`). Each processor, count of threads, vector width and version of this
package has its own.
"""
import math
import time

import numpy as np
import theano
import theano.tensor as tt
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.signal.pool import MaxPoolGrad as TheanoMaxPoolGrad, Pool

import layoutopt
from layoutopt.kernels import FilterActs, ImageActs, MaxPool, MaxPoolGrad, WeightActs
from layoutopt.kernels.base import WINOGRAD_TILES, configure, configured
from layoutopt.kernels.relayout import to_c01b
from layoutopt.rewrites.constraints import FORWARD, IMAGE_GRADIENT, MAX_POOL, MAX_POOL_GRADIENT, WEIGHT_GRADIENT
from layoutopt.rewrites.cost import SPEED_OF, ConvWork, Machine, PoolWork, Speeds, cpu

from . import kept
from .blas import choose_kernels
from .runtime import keep_memory

# (channels, rows and columns, filters, filter size, stride, pad): shallow, deep, 1 x 1; and the last, which is bound by
# nothing but multiply-adds: at full vectors it runs at PEAK_SHARE of a core's peak (measured).
LAYERS = ((1, 28, 20, 5, 1, 0), (20, 12, 50, 5, 1, 0), (256, 14, 64, 1, 1, 0), (192, 13, 384, 3, 1, 1))
PEAK_SHARE = 0.93
POOLS = ((20, 24, 2), (64, 12, 2))  # (channels, rows and columns, window and stride)


# ---- where it is kept


def key_of(machine):
    """What a calibration is valid for, as plain data."""
    return dict(cpu=cpu()[0], threads=machine.threads, images_at_once=machine.images_at_once,
                product_threads=machine.product_threads, lanes=machine.lanes, version=layoutopt.__version__)


def path_of(key, folder=None):
    return kept.path_of("machine", key, folder)


def save(machine, folder=None):
    """Keep a measured machine.

    Parameters
    ----------
    machine : Machine
    folder : str, optional
        By default `kept.cache_folder()`.

    Returns
    -------
    str, or None
        The file; None where it cannot be written, which is logged.
    """
    key = key_of(machine)
    content = dict(key=key, machine=dict(machine._asdict(), speeds=machine.speeds._asdict()))
    return kept.write(path_of(key, folder), content, "calibration")


def load(default, folder=None):
    """The machine measured under the key of `default`, or `default`.

    Parameters
    ----------
    default : Machine
    folder : str, optional
        By default `kept.cache_folder()`.

    Returns
    -------
    Machine
        `default` where nothing was measured; and where the file makes no sense, which is logged once.
    """
    key = key_of(default)
    return kept.read(path_of(key, folder), key, "calibration", lambda content: _machine(content["machine"])) or default


def _machine(fields):
    """A Machine of what a file says, which may be anything."""
    fields = dict(fields)
    machine = Machine(**dict(fields, speeds=Speeds(**fields["speeds"])))
    for numbers, usual in ((machine, Machine()), (machine.speeds, Speeds())):
        for name, value in numbers._asdict().items():
            if name != "speeds" and not _is_like(value, getattr(usual, name)):
                raise ValueError("%s is %.50r" % (name, value))
    return machine


def _is_like(value, usual):
    """Whether a value of a file may stand where a `usual` one stands: above 0, finite, and whole where that is."""
    kinds = int if isinstance(usual, int) else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < float(value) < math.inf


def find_machine(settings):
    """The machine that the optimizer plans for: as measured, else as it can be read.

    Parameters
    ----------
    settings : theano.config.layoutopt
    """
    return load(Machine.default(settings.simd))._replace(winograd=WINOGRAD_TILES[settings.winograd])


# ---- how it is measured


def best_seconds(call, budget):
    """The time of `call()`: the least of at least three, and of as many as fit `budget` seconds, after a first one."""
    call()
    times, end = [], time.perf_counter() + budget
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


class Program:
    """One op in one layout on random data.

    name : what is measured, a field of Speeds.
    predict : Machine -> seconds.
    """

    def __init__(self, name, predict, build, *shapes):
        self.name, self.predict, self._build = name, predict, build
        self._shapes = shapes

    def seconds(self, budget):
        rng = np.random.RandomState(0)
        values = [rng.uniform(-1, 1, shape).astype("float32") for shape in self._shapes]
        variables = [tt.TensorType("float32", [False] * value.ndim)() for value in values]
        mode = theano.compile.get_mode("FAST_RUN").excluding("layoutopt")
        function = theano.function(variables, theano.Out(self._build(*variables), borrow=True), mode=mode)
        function.trust_input = True
        return best_seconds(lambda: function(*values), budget)


def conv_programs(layer, batch):
    """A convolution and its gradients, stock and ours."""
    return [program for _, program in _convolutions(layer, batch)]


def _convolutions(layer, batch):
    channels, side, filters, size, stride, pad = layer
    out = (side + 2 * pad - size) // stride + 1
    shapes = (batch, channels, side, side), (filters, channels, size, size), (batch, filters, out, out)
    stock = dict(border_mode=(pad, pad), subsample=(stride, stride))
    ours = dict(pad=pad, stride=stride, flip=True, ceil_mode=False)
    pairs = {
        FORWARD: ((0, 1), AbstractConv2d(**stock), FilterActs(**ours)),
        WEIGHT_GRADIENT: ((0, 2), lambda x, g: AbstractConv2d_gradWeights(**stock)(x, g, (size, size)),
                          lambda x, g: WeightActs(**ours)(x, g, (size, size))[0]),
        IMAGE_GRADIENT: ((1, 2), lambda w, g: AbstractConv2d_gradInputs(**stock)(w, g, (side, side)),
                         lambda w, g: ImageActs(**ours)(g, w, (side, side))),
    }
    for kind, (which, in_bc01, in_c01b) in pairs.items():
        work = ConvWork(kind, batch, channels, filters, channels * size ** 2, out ** 2, side ** 2, stride ** 2)
        operands = [shapes[i] for i in which]
        yield work, Program("stock_conv", lambda m, work=work: m.stock_conv_seconds(work), in_bc01, *operands)
        yield work, Program(SPEED_OF[kind], lambda m, work=work: m.c01b_conv_seconds(work) / m.caution, in_c01b,
                            *map(_rotated, operands))


def pool_programs(layer, batch):
    """Max-pooling and its gradient, stock and ours."""
    channels, side, window = layer
    images, outputs = (batch, channels, side, side), (batch, channels, side // window, side // window)
    ds = (window, window)
    pairs = {
        MAX_POOL: ((images,), lambda x: Pool(ignore_border=True)(x, ds, ds, (0, 0)), MaxPool(ds, ceil_mode=False)),
        MAX_POOL_GRADIENT: ((images, outputs, outputs),
                            lambda x, y, g: TheanoMaxPoolGrad(ignore_border=True)(x, y, g, ds, ds, (0, 0)),
                            MaxPoolGrad(ds, ceil_mode=False)),
    }
    for kind, (operands, in_bc01, in_c01b) in pairs.items():
        work = PoolWork(kind, batch, channels * side * side)
        yield Program("stock_pool", lambda m, work=work: m.stock_pool_seconds(work), in_bc01, *operands)
        yield Program("pool", lambda m, work=work: m.c01b_pool_seconds(work) / m.caution, in_c01b,
                      *map(_rotated, operands))


def conversion_program(shape):
    size = 4 * int(np.prod(shape))
    return Program("conversion", lambda m: m.conversion_seconds(size, shape[0]), to_c01b, shape)


def _rotated(shape):
    return shape[1:] + shape[:1]


def measure(machine, batch, budget, layers=LAYERS, pools=POOLS, progress=iter):
    """`machine` with what this computer does in place of what it was assumed to do.

    Parameters
    ----------
    machine : Machine
        Threads and vectors are taken from it.
    batch : int
        Images in each program.
    budget : float
        Seconds that each program is repeated for.
    layers, pools : like LAYERS and POOLS
    progress : callable, optional
        What to wrap the list of programs in, such as a progress bar.

    Returns
    -------
    Machine
    """
    keep_memory()
    choose_kernels()
    with configured(winograd="off"):  # a layer without it shows the peak, and its gain is known from the direct kernels' times
        return _measure(machine, batch, budget, layers, pools, progress)


def _measure(machine, batch, budget, layers, pools, progress):
    machine = _measure_peaks(machine, layers[-1], budget)
    programs = [program for layer in layers for program in conv_programs(layer, batch)]
    programs += [program for layer in pools for program in pool_programs(layer, batch)]
    programs += [conversion_program((batch, channels, side, side)) for channels, side, *_ in layers]
    ratios = {}
    for program in progress(programs):
        ratios.setdefault(program.name, []).append(math.log(program.predict(machine) / program.seconds(budget)))
    speeds = {name: math.exp(sum(logs) / len(logs)) for name, logs in ratios.items()}
    return machine._replace(speeds=Speeds(**speeds))


def _measure_peaks(machine, layer, budget):
    """`machine` with its own multiply-adds and bandwidths; `layer` is bound by multiply-adds at full vectors."""
    work, program = next((w, p) for w, p in _convolutions(layer, 4 * machine.lanes) if p.name == "convolution")
    core_flops = work.flops / (program.seconds(budget) * machine.threads * PEAK_SHARE)
    rates = []
    for size in (2 ** 26, 2 ** 19):  # bytes: more than caches hold, and what any second-level cache holds
        x = np.ones(size // 4, "float32")
        to = np.empty_like(x)
        rates.append(2 * size / best_seconds(lambda: np.copyto(to, x), budget))
    # Two cores read and write twice what one does, more hardly more. A copy reads and writes at once; most ops take
    # turns. Below 8 lanes the kernels do not reach a core's peak: Machine.kernel_flops.
    return machine._replace(core_flops=core_flops * 8 / min(8, machine.lanes),
                            bandwidth=rates[0] * min(2, machine.threads), core_bandwidth=rates[1] / 2)


# ---- the command


def add_arguments(parser):
    parser.add_argument("--batch", type=int, default=32, help="images in each program (32)")
    parser.add_argument("--seconds", type=float, default=0.2, help="how long each program is repeated (0.2)")
    parser.add_argument("--folder", help="where to keep the result (default: %s)" % kept.cache_folder())


def _progress(programs):
    """A bar where there is a terminal, and tqdm, which layoutopt itself does without."""
    try:
        from tqdm import tqdm
    except ImportError:
        return programs
    return tqdm(programs, unit="program", disable=None)


def run(args):
    """The command; returns the exit status."""
    simd = theano.config.layoutopt.simd
    configure(simd=simd)
    default = Machine.default(simd)
    print("layoutopt: measuring %s, %d threads, vectors of %d" % (cpu()[0], default.threads, default.lanes))
    machine = measure(default, args.batch, args.seconds, LAYERS, POOLS, _progress)
    print("a core's peak %.3g GFLOP/s; copies %.3g GB/s in cache, %.3g from memory"
          % (machine.core_flops / 1e9, machine.core_bandwidth / 1e9, machine.bandwidth / 1e9))
    print("speed relative to what was assumed: "
          + ", ".join("%s %.2f" % (name.replace("_", " "), value) for name, value in machine.speeds._asdict().items()))
    path = save(machine, args.folder)
    if path is None:
        return 1
    print("kept in %s" % path)
    return 0
