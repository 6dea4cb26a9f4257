"""Training steps of the networks of `examples/`: stock Theano, layoutopt's plan, every site in c01b, and PyTorch, in turns.

    python benchmarks/networks.py                                    all networks at batches 1, 8, 32 and 128
    python benchmarks/networks.py resnet50 --batches 1 8 --json FILE
    TORCH_PYTHON=... python benchmarks/networks.py alexnet vgg16 resnet50 --full --batches 32 --keep-memory --against stock PyTorch

The plan is to be no slower than stock and than c01b everywhere. So that this ends within the hour on two cores, images and
networks are smaller than the originals; ``--full`` measures the originals.
"""
import argparse
import json
import os

import numpy as np
from turns import KEEP_MEMORY, Variant, in_turns, theano_flags

SMALLER = {
    "alexnet": dict(width=0.5),
    "vgg16": dict(size=64, width=0.5),
    "inception": dict(size=64, width=0.5),
    "resnet50": dict(size=64, width=0.5),
    "dcgan": dict(width=0.5),
    "fcn": dict(size=64, width=0.5),
    "allconv": dict(width=0.5),
}
FLAG = "optimizer_including=layoutopt"
VARIANTS = {"stock": ("as planned",), "planned": ("as planned", FLAG), "all c01b": ("all c01b", FLAG)}
IN_TORCH = ("alexnet", "vgg16", "resnet50")  # networks_torch.py
A_TURN = 0.4  # seconds, at least


def start(name, sizes, more_flags, environment, chosen):
    """The processes of one network by variant, those chosen, warm, and steps that fill a turn."""
    running = {variant: Variant("network_theano.py", dict(environment, **theano_flags(*flags, *more_flags)),
                                (name, json.dumps(sizes), layout))
               for variant, (layout, *flags) in VARIANTS.items() if variant in chosen}
    torch = os.environ.get("TORCH_PYTHON")
    if torch and name in IN_TORCH and "PyTorch" in chosen:
        running["PyTorch"] = Variant("network_torch.py", environment, (name, json.dumps(sizes)), torch)
    for variant in running.values():
        variant.seconds(2)
    longest = max(variant.seconds(1)[0] for variant in running.values())
    return running, max(1, min(30, int(A_TURN / longest)))


def measure(name, sizes, turns, more_flags, environment, chosen):
    """Seconds of a step by variant, and how many times a step of the others the planned one takes: medians over the turns."""
    running, steps = start(name, sizes, more_flags, environment, chosen)
    times = in_turns(running, turns, steps)
    for variant in running.values():
        variant.close()
    shares = {other: float(np.median(np.array(times["planned"]) / times[other])) for other in times if other != "planned"}
    return dict(network=name, sizes=sizes, seconds={n: float(np.median(t)) for n, t in times.items()}, shares=shares, times=times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network", help="of %s; all by default" % ", ".join(SMALLER))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--against", nargs="*", default=["stock", "all c01b", "PyTorch"], metavar="variant",
                        help="of stock, 'all c01b' and PyTorch; all by default")
    parser.add_argument("--full", action="store_true", help="networks and images of the original size")
    parser.add_argument("--flags", default="", help="further Theano flags for all, as layoutopt.cost=measure")
    parser.add_argument("--keep-memory", action="store_true", help="malloc keeps freed memory, for all")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

    figures = []
    print("A training step in ms; and the planned one's time as a share of the others'")
    for name in args.networks or SMALLER:
        for batch in args.batches:
            sizes = dict({} if args.full else SMALLER[name], batch=batch)
            result = measure(name, sizes, args.turns, list(filter(None, [args.flags])),
                             KEEP_MEMORY if args.keep_memory else {}, ["planned", *args.against])
            figures.append(result)
            print("%-10s batch %3d " % (name, batch), *("%s %.1f " % (n, 1e3 * s) for n, s in result["seconds"].items()),
                  *("  %.2f of %s" % (share, other) for other, share in result["shares"].items()), flush=True)
    if args.json:
        with open(args.json, "w") as target:
            json.dump(figures, target, indent=1)


if __name__ == "__main__":
    main()
