"""What layoutopt adds to the time that Theano takes to optimize the training steps of `examples/` at full size.

    python benchmarks/compile_time.py                        all of them
    python benchmarks/compile_time.py resnet50 --turns 5     one, more often
    python benchmarks/compile_time.py vgg16 --profile        and where the time goes

Without and with the flag in turns, processor time, medians. Nothing is compiled to C++ or run. Python's garbage collector is off
meanwhile: it strikes anywhere, for a tenth of a second.
"""
import argparse
import cProfile
import gc
import pstats
import statistics

import theano

from conversions import NETWORKS, optimize

from layoutopt import optimizer

COLUMNS = (("network", "%-10s"), ("without", "%9s"), ("with", "%9s"), ("the pass", "%9s"), ("share", "%7s"), ("plan", "%9s"))


def measure(name, turns):
    """Median seconds of one network: (without the flag, with it, the pass, {part of the pass: seconds})."""
    stock, flagged, parts = [], [], []
    for _ in range(turns):
        stock.append(optimize(NETWORKS[name](), False)[1])
        _, seconds, stages = optimize(NETWORKS[name](), True)
        flagged.append(seconds)
        parts.append(stages)
    stages = {stage: statistics.median(turn[stage] for turn in parts) for stage in parts[0]}
    return statistics.median(stock), statistics.median(flagged), stages.pop("apply"), stages


def profile(name):
    """Print the functions in which the pass spends its time on a network."""
    profiler, apply = cProfile.Profile(), optimizer.LayoutOptimizer.apply
    optimizer.LayoutOptimizer.apply = lambda self, fgraph: profiler.runcall(apply, self, fgraph)
    try:
        optimize(NETWORKS[name](), True)
    finally:
        optimizer.LayoutOptimizer.apply = apply
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(40)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="of %s; all by default" % ", ".join(NETWORKS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="profile the pass instead of timing it")
    args = parser.parse_args()
    theano.config.floatX = "float32"

    if not args.profile:
        print("Seconds that Theano takes to optimize a training step; of these, the pass and its plan.")
        print(" ".join(text for _, text in COLUMNS) % tuple(title for title, _ in COLUMNS))
    gc.disable()
    for name in args.networks or NETWORKS:
        if args.profile:
            profile(name)
            continue
        stock, flagged, ours, stages = measure(name, args.turns)
        figures = (name,) + tuple("%.2f s" % s for s in (stock, flagged, ours)) + ("%.1f%%" % (100 * ours / stock),
                                                                                  "%.3f s" % stages["solve"])
        print(" ".join(text for _, text in COLUMNS) % figures)
        slowest_first = sorted(stages.items(), key=lambda item: -item[1])
        print("           " + ", ".join("%s %.3f s" % item for item in slowest_first), flush=True)


if __name__ == "__main__":
    main()
