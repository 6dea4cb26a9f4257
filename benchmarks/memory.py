"""Peak memory of training steps of the networks of `examples/`: stock Theano and layoutopt.

    python benchmarks/memory.py                              LeNet, AlexNet, VGG-16 and ResNet-50 of the original size
    python benchmarks/memory.py vgg16 --batch 4 --json FILE

Every variant is a process of its own. Counted is what is resident at the worst moment of its first three steps less what was
resident before them, when functions were compiled, parameters and a minibatch there, and what malloc had free given back: so
results, workspaces of kernels, Theano's and BLAS's, code and stacks that the first step touches, and what malloc keeps though it
is free. That depends on malloc's settings, which are the same for both: once as the system has them, once so that freed memory is
kept (the flag layoutopt.memory=keep, which is layoutopt's default). Linux, with glibc.
"""
import argparse
import json
import os

from turns import KEEP_MEMORY, Variant, theano_flags

STEPS = 3
BATCHES = {"lenet": 500, "alexnet": 32, "vgg16": 8, "resnet50": 8}
LENET = (32, 64)  # filters
VARIANTS = {"stock": (), "layoutopt": ("optimizer_including=layoutopt", "layoutopt.memory=system")}
MALLOC = {"as the system has it": {}, "keeps freed memory": KEEP_MEMORY}


def start(network, batch, flags, environment):
    """A process with the network's compiled training step."""
    environment = dict(environment, **theano_flags(*flags))
    if network == "lenet":
        return Variant("lenet_theano.py", environment, (*LENET, batch))
    return Variant("network_theano.py", environment, (network, json.dumps(dict(batch=batch)), "as planned"))


def peak(*task):
    """Bytes that the steps need besides what is there before them; arguments as those of `start`."""
    process = start(*task)
    before = process.ask("settle")
    process.seconds(STEPS)
    bytes_needed = process.ask("peak") - before
    process.close()
    return bytes_needed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network", help="of %s; all by default" % ", ".join(BATCHES))
    parser.add_argument("--batch", type=int, help="images in a minibatch; by default %s" % BATCHES)
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

    figures = []
    print("Peak memory of training steps in MB, %s threads" % os.environ["OMP_NUM_THREADS"])
    for name in args.networks or BATCHES:
        batch = args.batch or BATCHES[name]
        for malloc, environment in MALLOC.items():
            needed = {variant: peak(name, batch, flags, environment) for variant, flags in VARIANTS.items()}
            figures.append(dict(network=name, batch=batch, malloc=malloc, bytes=needed))
            print("%-10s batch %3d, malloc %-21s" % (name, batch, malloc),
                  *("%s %.0f " % (variant, b / 1e6) for variant, b in needed.items()),
                  "layoutopt needs %.2f of stock's" % (needed["layoutopt"] / needed["stock"]), flush=True)
    if args.json:
        with open(args.json, "w") as target:
            json.dump(figures, target, indent=1)


if __name__ == "__main__":
    main()
