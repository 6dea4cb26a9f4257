"""A training step of LeNet on the CPU: stock Theano, the same with layoutopt, and PyTorch where it is installed.

    make bench                              (or python benchmarks/cpu.py [--json FILE])

Every variant is a process of its own with the same threads. They take turns, a few steps each, so that a slower minute of a
shared machine slows all of them; the figures are medians over the turns, and the ratios medians of the ratios turn by turn.
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORKS = {"LeNet 32, 64": (32, 64), "LeNet 20, 50": (20, 50)}
# Keeps freed memory in the process: PyTorch's eager mode allocates every result and would mostly pay page faults.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296",
               "MALLOC_TOP_PAD_": "268435456"}


class Variant:
    """A process that trains LeNet and times steps when asked to."""

    def __init__(self, python, script, environment, arguments):
        command = [python, os.path.join(HERE, script), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **environment))
        if self.process.stdout.readline().strip() != "ready":
            sys.exit("benchmark: %s ended before it was ready" % script)

    def seconds(self, steps):
        """The median time of a step over `steps` of them, and the loss of the last."""
        self.process.stdin.write("%d\n" % steps)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return float(np.median(answer["seconds"])), answer["loss"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def theano_flags(*more):
    given = os.environ.get("THEANO_FLAGS", "").strip(",")
    return {"THEANO_FLAGS": ",".join(filter(None, [given, "floatX=float32", "openmp=True", *more]))}


def variants(nkerns, batch, keep_memory):
    """The processes to compare, by name, all started."""
    arguments = (*nkerns, batch)
    common = dict(KEEP_MEMORY if keep_memory else {})
    started = {
        "stock": Variant(sys.executable, "lenet_theano.py", dict(common, **theano_flags()), arguments),
        "layoutopt": Variant(sys.executable, "lenet_theano.py",
                             dict(common, **theano_flags("optimizer_including=layoutopt")), arguments),
    }
    torch = os.environ.get("TORCH_PYTHON")
    if torch:
        started["PyTorch"] = Variant(torch, "lenet_torch.py", common, arguments)
    return started


def measure(nkerns, batch, turns, steps, keep_memory):
    """Seconds of a step per variant and turn."""
    running = variants(nkerns, batch, keep_memory)
    times = {name: [] for name in running}
    for variant in running.values():
        variant.seconds(3)  # first calls: page faults, thread start
    for _ in range(turns):
        for name, variant in running.items():
            times[name].append(variant.seconds(steps)[0])
    for variant in running.values():
        variant.close()
    return times


def ratios(times):
    """How many times faster layoutopt is than each other variant: (median, least, most) over the turns."""
    ours = np.array(times["layoutopt"])
    others = {name: np.array(seconds) / ours for name, seconds in times.items() if name != "layoutopt"}
    return {name: (float(np.median(r)), float(r.min()), float(r.max())) for name, r in others.items()}


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
