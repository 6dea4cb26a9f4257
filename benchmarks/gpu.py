"""The GPU's kernels one by one, and LeNet's training step, beside stock Theano's GPU graph and PyTorch (cuDNN), in turns.

    THEANO_FLAGS=device=cuda TORCH_PYTHON=python3 python benchmarks/gpu.py [--json FILE]

Times are CUDA's events (the training step: the host's clock, loss fetched). 'original' are the kernels of 2012 on an H200,
as measured once; they are not run here.
"""
import argparse
import json
import os
import sys

import numpy as np
from layers import DIRECTIONS, flops
from turns import Variant, in_turns

# Name: (batch, channels, rows and columns, filters, filter rows and columns, stride, pad), and the original's ms, by direction.
LAYERS = {
    "lenet2": ((500, 32, 12, 64, 5, 1, 0), (0.362, 0.378, 0.153)),
    "alex1": ((128, 3, 224, 64, 11, 4, 2), (0.653, 0.956, 1.012)),
    "alex2": ((128, 64, 27, 192, 5, 1, 2), (2.415, 2.455, 2.296)),
    "alex3": ((128, 192, 13, 384, 3, 1, 1), (1.475, 1.241, 1.328)),
    "vgg3": ((128, 128, 56, 256, 3, 1, 1), (11.18, 9.999, 11.01)),
    "vgg4": ((128, 256, 28, 512, 3, 1, 1), (11.24, 9.817, 10.86)),
    "L2": ((128, 64, 64, 128, 9, 1, 0), (20.50, 22.97, 19.46)),
    "lenet1": ((500, 1, 28, 32, 5, 1, 0), (None, None, None)),
}
POOLS = ((500, 32, 24, 2, 2), (128, 64, 55, 3, 2), (128, 256, 13, 3, 2), (128, 128, 56, 2, 2))  # as in layers.py
PEERS = {"float32": ("stock", "cuDNN float32", "original"), "tf32": ("cuDNN tf32",)}


def theano_flags(*more):
    given = os.environ.get("THEANO_FLAGS", "").strip(",")
    return {"THEANO_FLAGS": ",".join(filter(None, [given, "floatX=float32", *more]))}


def torch_environment():
    """PyTorch brings its own CUDA libraries and its own Python: the paths by which Theano's are found are not for it."""
    return dict(LD_LIBRARY_PATH=os.environ.get("TORCH_LD_LIBRARY_PATH", ""), PYTHONHOME="", PYTHONPATH="")


def start(script, torch_script, arguments=()):
    """Processes by variant."""
    running = {"float32": Variant(script, theano_flags("optimizer_including=layoutopt"), ("layoutopt", *arguments)),
               "tf32": Variant(script, theano_flags("optimizer_including=layoutopt", "layoutopt.precision=tf32"),
                               ("layoutopt", *arguments)),
               "stock": Variant(script, theano_flags(), ("stock", *arguments))}
    torch = os.environ.get("TORCH_PYTHON")
    if torch:
        for precision in ("float32", "tf32"):
            running["cuDNN " + precision] = Variant(torch_script, torch_environment(), (precision, *arguments), torch)
    return running


def kernels(turns):
    """A row of median seconds by variant for each layer and direction, and each pooling."""
    running, rows = start("gpu_theano.py", "gpu_torch.py"), []
    tasks = [(name, direction, layer, original[d], "conv") for name, (layer, original) in LAYERS.items()
             for d, direction in enumerate(DIRECTIONS)]
    tasks += [("pool", direction, layer, None, "pool") for layer in POOLS for direction in ("forward", "backward")]
    for name, direction, layer, original, family in tasks:
        for variant in running.values():
            variant.prepare(family=family, direction=direction, layer=layer)
            variant.seconds(1)
        times = {variant: float(np.median(t)) for variant, t in in_turns(running, turns, 3).items()}
        if original:
            times["original"] = 1e-3 * original
        rows.append(dict(name=name, direction=direction, layer=layer, family=family, seconds=times))
        print(line(rows[-1]), flush=True)
    for variant in running.values():
        variant.close()
    return rows


def line(row):
    text = "%-7s %-15s" % (row["name"], row["direction"])
    text += "".join("  %s %.3f" % (name, 1e3 * seconds) for name, seconds in row["seconds"].items())
    if row["family"] == "conv":
        text += "  %.0f TFLOP/s" % (1e-12 * flops(row["layer"]) / row["seconds"]["float32"])
    return text + "".join("  %.2f x %s" % (ratio, peer) for _, peer, ratio in ratios(row))


def ratios(row):
    """(our precision, peer, how many times faster we are)."""
    return [(ours, peer, row["seconds"][peer] / row["seconds"][ours])
            for ours, peers in PEERS.items() for peer in peers if peer in row["seconds"]]


def summary(rows):
    """Geometric means, and the least."""
    for family, directions in (("conv", DIRECTIONS), ("pool", ("forward", "backward"))):
        for direction in directions:
            chosen = [r for row in rows if (row["family"], row["direction"]) == (family, direction) for r in ratios(row)]
            for ours, peer in dict.fromkeys((ours, peer) for ours, peer, _ in chosen):
                found = [ratio for o, p, ratio in chosen if (o, p) == (ours, peer)]
                print("%-5s %-15s %-8s %.2f times %s (geometric mean of %d), least %.2f"
                      % (family, direction, ours, np.exp(np.mean(np.log(found))), peer, len(found), min(found)))


def lenet(turns):
    """Seconds of LeNet's training step (batch 500, 32 and 64 filters) by variant."""
    running = {"stock": Variant("lenet_theano.py", theano_flags(), (32, 64, 500))}
    for precision in ("float32", "tf32"):
        running[precision] = Variant("lenet_theano.py", theano_flags("optimizer_including=layoutopt",
                                                                     "layoutopt.precision=" + precision), (32, 64, 500))
    for variant in running.values():
        variant.seconds(10)
    times = {name: float(np.median(t)) for name, t in in_turns(running, turns, 20).items()}
    for variant in running.values():
        variant.close()
    print("LeNet's training step:", "  ".join("%s %.2f ms" % (name, 1e3 * t) for name, t in times.items()),
          "  %.1f times stock" % (times["stock"] / times["float32"]), flush=True)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--only", choices=("lenet", "kernels"), help="half of it")
    args = parser.parse_args()
    step = lenet(args.turns) if args.only != "kernels" else None
    rows = kernels(args.turns) if args.only != "lenet" else []
    summary(rows)
    if args.json:
        with open(args.json, "w") as target:
            json.dump(dict(lenet=step, kernels=rows), target, indent=1)


if __name__ == "__main__":
    sys.exit(main())
