"""A training step of LeNet on the CPU: stock Theano, the same with layoutopt, and PyTorch where it is installed.

    make bench                              (or python benchmarks/cpu.py [--json FILE])

Every variant is a process of its own with the same threads. They take turns, a few steps each, so that a slower minute of a
shared machine slows all of them; the figures are medians over the turns, and the ratios medians of the ratios turn by turn.
"""
import argparse
import json
import os

import numpy as np

from turns import KEEP_MEMORY, Variant, in_turns, ratios, theano_flags

NETWORKS = {"LeNet 32, 64": (32, 64), "LeNet 20, 50": (20, 50)}


def variants(nkerns, batch, keep_memory):
    """The processes to compare, by name, all started."""
    arguments = (*nkerns, batch)
    common = dict(KEEP_MEMORY if keep_memory else {})
    started = {
        "stock": Variant("lenet_theano.py", dict(common, **theano_flags()), arguments),
        "layoutopt": Variant("lenet_theano.py", dict(common, **theano_flags("optimizer_including=layoutopt")), arguments),
    }
    torch = os.environ.get("TORCH_PYTHON")
    if torch:
        started["PyTorch"] = Variant("lenet_torch.py", common, arguments, torch)
    return started


def measure(nkerns, batch, turns, steps, keep_memory):
    """Seconds of a step per variant and turn."""
    running = variants(nkerns, batch, keep_memory)
    for variant in running.values():
        variant.seconds(3)  # first calls: page faults, thread start
    times = in_turns(running, turns, steps)
    for variant in running.values():
        variant.close()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

    figures = []
    print("A training step, batch %d, %s threads; medians of %d turns" %
          (args.batch, os.environ["OMP_NUM_THREADS"], args.turns))
    for keep_memory in (False, True):
        print("\nmalloc %s" % ("keeps freed memory, for all" if keep_memory else "as the system has it"))
        for title, nkerns in NETWORKS.items():
            times = measure(nkerns, args.batch, args.turns, args.steps, keep_memory)
            faster = ratios(times)
            figures.append(dict(network=title, keep_memory=keep_memory, seconds=times, ratios=faster))
            print("%-14s" % title, "  ".join("%s %.1f ms" % (name, 1e3 * np.median(s)) for name, s in times.items()))
            for name, (median, least, most) in faster.items():
                print("%-14s   layoutopt is %.2f times as fast as %s (%.2f to %.2f)" % ("", median, name, least, most))
    if args.json:
        with open(args.json, "w") as target:
            json.dump(figures, target, indent=1)


if __name__ == "__main__":
    main()
