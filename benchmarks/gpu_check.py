"""Are the GPU's kernels right? Random shapes against the numpy reference, on whatever device Theano has.

    THEANO_FLAGS=device=cuda,floatX=float32 python benchmarks/gpu_check.py
    compute-sanitizer --tool memcheck python benchmarks/gpu_check.py --cases 12 --layers 0

Whole numbers must come out exactly: every product and sum of them is exact in float32, in TF32, and in three terms of TF32.
Of real numbers, on the layers of the benchmark, the error is printed relative to the result's norm, and must be below the bound
given. The tests (tests/test_gpu_kernels.py) are the same and more, for OpenCL; this needs numpy and Theano alone.
"""
import argparse
import sys
import time

import numpy as np
import theano
import theano.tensor as tt

from layoutopt.kernels import (AvgPool, AvgPoolGrad, CrossMapNorm, CrossMapNormUndo, CrossMapSum, FilterActs, ImageActs, MaxPool,
                               MaxPoolGrad, MaxPoolGradGrad, ProbMaxPool, ProbMaxPoolGrad, StochasticMaxPool, ToBC01, ToC01B,
                               WeightActs, WeightedMaxPool, WeightedMaxPoolGrad)
from layoutopt.kernels.gpu.ops import GPU_OPS
from layoutopt.kernels.reference import avg_pool as avg_reference
from layoutopt.kernels.reference import conv as conv_reference
from layoutopt.kernels.reference import cross_map_norm as norm_reference
from layoutopt.kernels.reference import pool as pool_reference
from layoutopt.kernels.reference import prob_pool as prob_reference
from layoutopt.kernels.reference import stochastic_pool as stochastic_reference
from layoutopt.kernels.reference import weighted_pool as weighted_reference

PLAIN = theano.Mode("cvm", None)
MODES = {"float32": dict(tf32=False), "tf32": dict(tf32=True)}

# (batch, channels, size, filters, filter, stride, pad), those of the benchmark, on fewer images.
LAYERS = [(100, 32, 12, 64, 5, 1, 0), (128, 3, 64, 64, 11, 4, 2), (32, 64, 27, 192, 5, 1, 2), (128, 192, 13, 384, 3, 1, 1),
          (16, 128, 56, 256, 3, 1, 1), (32, 256, 28, 512, 3, 1, 1), (8, 64, 64, 128, 9, 1, 0), (500, 1, 28, 32, 5, 1, 0)]
# What ../docs/performance.md reports, and as much again. TF32 rounds factors to 2**-11.
BOUNDS = {"float32": 4e-6, "tf32": 1e-3}


def run_all(op, *values, **parameters):
    """All results of a host op's GPU counterpart on host arrays."""
    gpu_op = GPU_OPS[type(op)](op, **parameters)
    inputs = [tt.TensorType(str(np.asarray(v).dtype), [False] * np.ndim(v))() for v in values]
    outputs = gpu_op(*inputs)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return theano.function(inputs, [y.transfer("cpu") for y in outputs], mode=PLAIN)(*values)


def run(op, *values, **parameters):
    """The first of them."""
    return run_all(op, *values, **parameters)[0]


def three(geometry, images, filters, hid, **parameters):
    """(name, by the GPU, by the reference) for a convolution and both gradients; the reference in its operands' dtype."""
    op = FilterActs(**geometry)
    grid, image, window, groups = hid.shape[1:3], images.shape[1:3], filters.shape[1:3], op.groups
    (top, _), (left, _) = op.pads(window)
    args = (top, left), op.stride, op.flip, groups
    single = [v.astype("float32") for v in (images, filters, hid)]
    yield "forward", run(op, *single[:2], grid, **parameters), conv_reference.filter_acts(images, filters, grid, *args)
    yield ("image gradient", run(op.like(ImageActs), single[2], single[1], image, **parameters),
           conv_reference.image_acts(hid, filters, image, *args))
    yield ("weight gradient", run(op.like(WeightActs), single[0], single[2], window, **parameters),
           conv_reference.weight_acts(images, hid, window, *args))


def random_geometry(rng):
    def pick(*values):
        return values[rng.randint(len(values))]

    geometry = dict(pad=pick(0, 0, 1, 2, "half", "full", ((0, 2), (3, 1))), stride=pick(1, 1, 2, 3, (1, 2), (3, 1)),
                    flip=pick(False, True), ceil_mode=pick(False, True), groups=pick(1, 1, 1, 2))
    window = pick(1, 2, 3, 5), pick(1, 2, 3, 4)
    op = FilterActs(**geometry)
    image = tuple(max(1, size - sum(pad)) + rng.randint(7) for size, pad in zip(window, op.pads(window)))
    channels, filters = (op.groups * pick(1, 2, 3, 4, 16, 17, 32, 48, 64, 130) for _ in range(2))
    batch = pick(1, 2, 7, 16, 20, 32, 36, 64, 100, 128, 130, 164)
    return geometry, (channels, *image, batch), (channels // op.groups, *window, filters), op.output_grid(image, window)


def check_convolutions(rng, cases):
    whole = lambda shape: rng.randint(-2, 3, shape).astype("float32")  # noqa: E731
    for number in range(cases):
        geometry, images, filters, grid = random_geometry(rng)
        operands = whole(images), whole(filters), whole((filters[3], *grid, images[3]))
        for mode, parameters in MODES.items():
            for name, value, right in three(geometry, *operands, **parameters):
                wrong = (value != right).sum() if value.shape == right.shape else -1
                report(not wrong, "%s, %s: %d of %d wrong; images %s, filters %s, %s"
                       % (name, mode, wrong, right.size, images, filters, geometry))


def check_layers(rng, count):
    for batch, channels, size, filters, window, stride, pad in LAYERS[:count]:
        grid = (size + 2 * pad - window) // stride + 1
        operands = [rng.uniform(-1, 1, shape).astype("float32").astype("float64") for shape in (
            (channels, size, size, batch), (channels, window, window, filters), (filters, grid, grid, batch))]
        for mode, parameters in MODES.items():
            for name, value, right in three(dict(pad=pad, stride=stride, ceil_mode=False), *operands, **parameters):
                error = np.linalg.norm(value - right) / np.linalg.norm(right)
                report(error < BOUNDS[mode], "%s, %s: error %.2g; batch %d, %d channels of %d, %d filters of %d, stride %d, "
                       "pad %d" % (name, mode, error, batch, channels, size, filters, window, stride, pad), say=True)


def check_poolings(rng, cases):
    for number in range(cases):
        shape = tuple(rng.randint(1, 10, 3)) + (int(rng.choice([1, 7, 32, 100, 130])),)
        ds, stride = (tuple(int(v) for v in rng.randint(1, 5, 2)) for _ in range(2))
        start = tuple(min(max(int(rng.randint(-3, 2)), 1 - d), n - 1) for d, n in zip(ds, shape[1:3]))
        op, geometry = MaxPool(ds, stride, start), (ds, stride, start)
        x = rng.randint(-2, 3, shape).astype("float32")
        z = pool_reference.max_pool(x, op.output_grid(shape[1:3]), *geometry)
        gz = rng.randint(-2, 3, z.shape).astype("float32")
        average = AvgPool(ds, stride, start, mode="sum")
        results = {
            "max-pooling": (run(op, x), z),
            "its gradient": (run(op.like(MaxPoolGrad), x, z, gz), pool_reference.max_pool_grad(x, z, gz, *geometry)),
            "its second": (run(op.like(MaxPoolGradGrad), x, z, x), pool_reference.max_pool_grad_grad(x, z, x, *geometry)),
            "sums": (run(average, x), avg_reference.avg_pool(x, z.shape[1:3], *geometry, "sum")),
            "their gradient": (run(average.like(AvgPoolGrad), gz, np.array(shape[1:3])),
                               avg_reference.avg_pool_grad(gz, shape[1:3], *geometry, "sum")),
            "to c01b": (run(ToC01B(), x), np.moveaxis(x, 0, -1)), "to bc01": (run(ToBC01(), x), np.moveaxis(x, -1, 0))}
        for name, (value, right) in results.items():
            report(np.array_equal(value, right), "%s of %s, window %s, stride %s, start %s" % (name, shape, ds, stride, start))


def check_other_poolings(rng, cases):
    """By chance, exactly; by weight and by probability, within a few roundings of numbers that are at most 8."""
    for number in range(cases):
        shape = tuple(rng.randint(1, 10, 3)) + (int(rng.choice([1, 7, 32, 100, 130])),)
        ds, stride = (tuple(int(v) for v in rng.randint(1, 5, 2)) for _ in range(2))
        start = tuple(min(max(int(rng.randint(-3, 2)), 1 - d), n - 1) for d, n in zip(ds, shape[1:3]))
        text = "of %s, window %s, stride %s, start %s" % (shape, ds, stride, start)
        x, (seed, draw) = rng.randint(0, 4, shape).astype("float32"), (int(v) for v in rng.randint(-2 ** 62, 2 ** 62, 2))
        chance, weighted = StochasticMaxPool(ds, stride, start), WeightedMaxPool(ds, stride, start)
        probable = ProbMaxPool(ds, start)
        grid, geometry = chance.output_grid(shape[1:3]), (chance.ds, chance.stride, chance.start)
        right = stochastic_reference.stochastic_max_pool(x, grid, *geometry, seed, draw)
        report(np.array_equal(run(chance, x, np.array(seed), np.array(draw)), right), "stochastic pooling " + text)

        y = weighted_reference.weighted_max_pool(x, grid, *geometry)
        gz = rng.randint(-2, 3, y.shape).astype("float32")
        t = rng.standard_normal(shape[:1] + probable.output_grid(shape[1:3]) + shape[3:]).astype("float32")
        p, h = prob_reference.prob_max_pool(x, t, *geometry[::2])
        results = {
            "weighted pooling": (run_all(weighted, x), [y]),
            "its gradient": (run_all(weighted.like(WeightedMaxPoolGrad), x, y, gz),
                             [weighted_reference.weighted_max_pool_grad(x, y, gz, *geometry)]),
            "probabilistic pooling": (run_all(probable, x, t), [p, h]),
            "its gradients": (run_all(probable.like(ProbMaxPoolGrad), p, h, t, x),
                              prob_reference.prob_max_pool_grad(p, h, t, x, *geometry[::2]))}
        for name, (values, rights) in results.items():
            report(all(np.allclose(value, right, rtol=0, atol=1e-4) for value, right in zip(values, rights)), name + " " + text)


def check_normalisations(rng, cases):
    """Across channels, against float64; results are of the order of 1, and their errors those of some ten roundings."""
    for number in range(cases):
        shape = tuple(int(n) for n in rng.permutation(rng.randint(1, [40, 9, 9, 140])))
        op = CrossMapNorm(int(rng.choice([1, 2, 3, 4, 5, 9, 16, 17, 40])), float(rng.choice([1e-4, 0.3])),
                          float(rng.choice([0.25, 0.5, 0.75, 1, 0.6, 2])), bool(rng.randint(2)), 1.5, int(rng.randint(4)))
        windows = dict(size=op.size, blocked=op.blocked, axis=op.axis)
        parameters = dict(windows, add_scale=op.add_scale, pow_scale=op.pow_scale, min_div=op.min_div)
        x, gy = (rng.uniform(-2, 2, shape).astype("float32") for _ in range(2))
        sums = CrossMapSum(op.size, op.blocked, True, op.axis)
        results = {
            "normalisation": (run(op, x), norm_reference.cross_map_norm(x.astype("float64"), **parameters)),
            "its gradient": (run(op.like(CrossMapNormUndo), x, gy),
                             norm_reference.cross_map_norm_undo(x.astype("float64"), gy.astype("float64"), **parameters)),
            "sums over channels": (run(sums, x), norm_reference.window_sum(x.astype("float64"), transposed=True, **windows))}
        for name, (value, right) in results.items():
            report(np.allclose(value, right, rtol=0, atol=2e-6 * max(2, abs(right).max())), "%s %s of %s" % (name, op, shape))


failures, checks = [], [0]


def report(right, text, say=False):
    checks[0] += 1
    if not right:
        failures.append(text)
    if say or not right:
        print("%s %s" % ("right" if right else "WRONG", text), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=150, help="random convolutions, and as many poolings of each kind")
    parser.add_argument("--layers", type=int, default=len(LAYERS), help="layers on which errors are measured")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, started = np.random.RandomState(args.seed), time.time()
    for check, count in ((check_poolings, args.cases), (check_other_poolings, args.cases),
                         (check_normalisations, args.cases), (check_convolutions, args.cases), (check_layers, args.layers)):
        check(rng, count)
        print("%s: %.0f s" % (check.__name__, time.time() - started), flush=True)
    print("%d checks, %d wrong" % (checks[0], len(failures)))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
