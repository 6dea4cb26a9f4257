"""Trains one of the well-known networks on random images: ordinary bc01 Theano.

    python examples/networks.py resnet50 --steps 3 --batch 8 --size 64
    python examples/networks.py vgg16 --width 0.25
"""
import argparse
import time

import numpy as np
import theano
from tqdm import tqdm

from alexnet import alexnet
from allconv import allconv
from dcgan import dcgan
from fcn import fcn
from inception import inception
from resnet import resnet50
from training import training_step
from vgg import vgg16

NETWORKS = {build.__name__: build for build in (alexnet, vgg16, inception, resnet50, dcgan, fcn, allconv)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, help="images in a minibatch")
    parser.add_argument("--size", type=int, help="rows and columns of an image")
    parser.add_argument("--width", type=float, help="multiplies the number of channels")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    args = parser.parse_args()

    theano.config.floatX = "float32"
    sizes = {name: getattr(args, name) for name in ("batch", "size", "width") if getattr(args, name) is not None}
    network = NETWORKS[args.network](**sizes)
    started = time.perf_counter()
    step = training_step(network, args.learning_rate)
    print("%s: %d parameters, compiled in %.1f s" % (
        args.network, sum(p.get_value(borrow=True).size for _, parameters in network.objectives for p in parameters),
        time.perf_counter() - started), flush=True)

    rng, seconds = np.random.RandomState(0), []
    progress = tqdm(range(args.steps), unit="step", disable=None)
    for i in progress:
        minibatch = network.minibatch(rng)
        started = time.perf_counter()
        losses = step(*minibatch)
        seconds.append(time.perf_counter() - started)
        print("step %d: loss %s, %.1f ms" % (i + 1, ", ".join("%.5f" % loss for loss in losses), 1e3 * seconds[-1]))


if __name__ == "__main__":
    main()
