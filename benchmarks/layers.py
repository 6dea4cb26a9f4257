"""The kernels one by one beside PyTorch's (oneDNN, the better of NCHW and channels_last), in turns.

    python benchmarks/layers.py [--batches 8 20] [--json FILE]       TORCH_PYTHON names PyTorch's interpreter
    python benchmarks/layers.py --direct                              direct kernels as shares of the peak, without PyTorch

Convolutions forward, data gradient and weight gradient, each also as a share of the multiply-add peak measured in the same
run (taps in the padding count as work); max-pooling forward and backward; and the conversion from bc01 to c01b beside numpy's
strided copy. malloc keeps freed memory on both sides, and both have the same threads.
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from tqdm import tqdm
from turns import HERE, KEEP_MEMORY, Variant, in_turns

# (batch, channels, rows and columns, filters, filter rows and columns, stride, pad)
CONVOLUTIONS = ((500, 1, 28, 32, 5, 1, 0), (500, 32, 12, 64, 5, 1, 0), (128, 3, 224, 64, 11, 4, 2),
                (128, 64, 27, 192, 5, 1, 2), (128, 192, 13, 384, 3, 1, 1), (128, 256, 13, 256, 3, 1, 1),
                (32, 128, 56, 256, 3, 1, 1), (32, 256, 28, 512, 3, 1, 1), (128, 128, 16, 128, 7, 1, 0))
DIRECTIONS = ("forward", "data gradient", "weight gradient")
# (batch, channels, rows and columns, window, stride)
POOLS = ((500, 32, 24, 2, 2), (128, 64, 55, 3, 2), (128, 256, 13, 3, 2), (32, 128, 56, 2, 2))
CONVERSIONS = ((500, 32, 24), (128, 3, 224), (128, 64, 55), (32, 256, 28))  # (batch, channels, rows and columns)
A_TURN = 0.2  # seconds, at least


def flops(layer):
    batch, channels, size, filters, filter_size, stride, pad = layer
    out = (size + 2 * pad - filter_size) // stride + 1
    return 2 * batch * channels * filters * filter_size ** 2 * out ** 2


@contextlib.contextmanager
def multiply_adds(threads):
    """Gives a function that measures multiply-adds in registers on that many threads, operations a second."""
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "peak")
        subprocess.run([os.environ.get("CXX", "g++"), "-O3", "-march=native", "-pthread", os.path.join(HERE, "peak.cc"),
                        "-o", program], check=True)
        yield lambda: 1e9 * float(subprocess.check_output([program, str(threads)]))


def multiply_add_peak(threads):
    """Operations a second on that many threads, the best of three."""
    with multiply_adds(threads) as measure:
        return max(measure() for _ in range(3))


def steps_of_turn(seconds):
    return max(1, min(50, int(A_TURN / seconds)))


def compare(variants, task, turns):
    """Median seconds by variant, and how many times faster the first is than each other: medians over the turns."""
    longest = 0.0
    for variant in variants.values():
        variant.prepare(**task)
        variant.seconds(2)
        longest = max(longest, variant.seconds(1)[0])
    times = in_turns(variants, turns, steps_of_turn(longest))
    ours = np.array(times["layoutopt"])
    return {name: (float(np.median(t)), float(np.median(np.array(t) / ours))) for name, t in times.items()}


def tasks(batches):
    for layer in CONVOLUTIONS:
        for batch in [layer[0]] + batches:
            for direction in DIRECTIONS:
                yield dict(family="conv", direction=direction, layer=(batch,) + layer[1:])
    for layer in POOLS:
        for direction in ("forward", "backward"):
            yield dict(family="pool", direction=direction, layer=layer)


def knows_f4(task):
    """Whether layoutopt.winograd=f4 may change anything: 3 x 3 and 5 x 5 filters, stride 1."""
    return task["family"] == "conv" and tuple(task["layer"][4:6]) in ((3, 1), (5, 1))


def run(batches, turns):
    """A row of figures for each task."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    peak = multiply_add_peak(threads)
    print("%d threads, %.0f GFLOP/s of multiply-adds" % (threads, peak / 1e9))
    variants = {"layoutopt": Variant("conv_theano.py", KEEP_MEMORY, ("f2",)),
                "with F4": Variant("conv_theano.py", KEEP_MEMORY, ("f4",))}
    if os.environ.get("TORCH_PYTHON"):
        variants["PyTorch"] = Variant("conv_torch.py", KEEP_MEMORY, python=os.environ["TORCH_PYTHON"])
    rows = []
    for task in tqdm(list(tasks(batches)), unit="op", disable=None):
        chosen = {name: v for name, v in variants.items() if name != "with F4" or knows_f4(task)}
        row = dict(task, seconds=compare(chosen, task, turns))
        if task["family"] == "conv":
            row["share"] = flops(task["layer"]) / row["seconds"]["layoutopt"][0] / peak
        rows.append(row)
        tqdm.write(line(row), file=sys.stdout)
    return rows + [conversion(variants["layoutopt"], layer, turns) for layer in CONVERSIONS]


def shares(batches, turns):
    """Direct kernels alone, without PyTorch: median and best share of the peak that is measured before and after each turn."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    variant = Variant("conv_theano.py", KEEP_MEMORY, ("off",))
    rows = []
    with multiply_adds(threads) as measure:
        for task in tqdm([t for t in tasks(batches) if t["family"] == "conv"], unit="op", disable=None):
            variant.prepare(**task)
            steps = steps_of_turn(variant.seconds(2)[0])
            of_turn = []
            for _ in range(turns):
                before, seconds, after = measure(), variant.seconds(steps)[0], measure()
                of_turn.append(flops(task["layer"]) / seconds / (0.5 * (before + after)))
            rows.append(dict(task, share=float(np.median(of_turn)), best=max(of_turn)))
            tqdm.write("%-32s %-15s  %3.0f%% of peak, at best %3.0f%%" % (
                ",".join(map(str, task["layer"])), task["direction"], 100 * rows[-1]["share"], 100 * rows[-1]["best"]),
                file=sys.stdout)
    return rows


def conversion(variant, layer, turns):
    """ToC01B beside numpy's copy of the transposed view, in one process, in turns."""
    seconds = {"to c01b": [], "numpy": []}
    for _ in range(turns):
        for name, times in seconds.items():
            variant.prepare(family="conversion", direction=name, layer=layer)
            variant.seconds(2)
            times.append(variant.seconds(5)[0])
    ours, numpy = (float(np.median(times)) for times in seconds.values())
    row = dict(family="conversion", direction="to c01b", layer=layer,
               seconds={"layoutopt": (ours, 1.0), "numpy": (numpy, numpy / ours)})
    print(line(row))
    return row


def line(row):
    text = "%-32s %-15s" % (",".join(map(str, row["layer"])), row["direction"])
    text += "".join("  %s %9.3f ms" % (name, 1e3 * seconds) for name, (seconds, _) in row["seconds"].items())
    text += "".join("  %.2f times as fast as %s" % (ratio, name) for name, (_, ratio) in row["seconds"].items()
                    if name != "layoutopt")
    return text + ("  %3.0f%% of peak" % (100 * row["share"]) if "share" in row else "")


def summary(rows):
    """Geometric means of how many times faster than PyTorch, and the worst, by direction and for all convolutions."""
    for family, directions in (("conv", DIRECTIONS), ("pool", ("forward", "backward"))):
        chosen = [row for row in rows if row["family"] == family and "PyTorch" in row["seconds"]]
        for name in directions + ("all",):
            ratios = [row["seconds"]["PyTorch"][1] for row in chosen if name in (row["direction"], "all")]
            if ratios:
                print("%-5s %-15s %.2f times PyTorch (geometric mean), %.2f to %.2f"
                      % (family, name, np.exp(np.mean(np.log(ratios))), min(ratios), max(ratios)))
    with_f4 = [row["seconds"]["PyTorch"][1] / row["seconds"].get("with F4", (0, 1))[1] for row in rows
               if row["family"] == "conv" and "PyTorch" in row["seconds"]]
    if with_f4:
        print("conv  with F4 allowed %.2f times PyTorch (geometric mean)" % np.exp(np.mean(np.log(with_f4))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="*", type=int, default=[], help="other batches of the same convolutions, too")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--direct", action="store_true",
                        help="direct kernels alone (layoutopt.winograd=off), as shares of the peak measured before and after each turn")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    if args.direct:
        rows = shares(args.batches, args.turns)
    else:
        rows = run(args.batches, args.turns)
        summary(rows)
    if args.json:
        with open(args.json, "w") as target:
            json.dump(rows, target, indent=1)


if __name__ == "__main__":
    main()
