"""Trains LeNet twice, without and with layoutopt, and compares: losses step by step, error, time.

    python examples/demo.py                       scikit-learn's digits
    python examples/demo.py --data DIRECTORY      MNIST: a folder of idx files, or mnist.pkl.gz

Both runs are `examples/lenet.py` as it stands; they differ in one Theano flag.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
FLAG = "optimizer_including=layoutopt"


def train(flags, arguments, folder, name):
    """Runs lenet.py in a process of its own with these Theano flags; what it wrote as JSON."""
    result = os.path.join(folder, name + ".json")
    flags = ",".join(filter(None, [os.environ.get("THEANO_FLAGS", "").strip(","), "floatX=float32", *flags]))
    command = [sys.executable, os.path.join(HERE, "lenet.py"), "--json", result, *arguments]
    print("\n$ THEANO_FLAGS=%s python %s" % (",".join(["floatX=float32", *flags.split("floatX=float32,")[1:]]),
                                             " ".join(["examples/lenet.py", *arguments])), flush=True)
    status = subprocess.call(command, env=dict(os.environ, THEANO_FLAGS=flags))
    if status:
        sys.exit("demo: lenet.py ended with exit code %d" % status)
    with open(result) as source:
        return json.load(source)


def largest_difference(stock, flagged):
    """(largest loss difference, largest allowed): float32 losses of the same training, rounded in another order.

    The two programs do the same arithmetic in another order. Each of a step's sums has at most n = 10^4 terms of one
    sign's size, so a step's gradients differ by about sqrt(n) roundings of 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, section 2.8: errors of random sign); steps add up, since the losses here fall smoothly.
    """
    steps = np.arange(1, len(stock) + 1)
    allowed = 2.0 ** -24 * np.sqrt(1e4) * steps * np.maximum(1, np.abs(stock))
    difference = np.abs(np.subtract(stock, flagged))
    return float(difference.max()), float(allowed[np.argmax(difference)]), bool((difference <= allowed).all())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="MNIST: a folder of idx files, or mnist.pkl.gz; default: scikit-learn's digits")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--nkerns", type=int, nargs=2, default=(32, 64))
    args = parser.parse_args()
    arguments = ["--steps", str(args.steps), "--batch", str(args.batch), "--nkerns", *map(str, args.nkerns)]
    if args.data:
        arguments += ["--data", args.data]

    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.txt")
        stock = train([], arguments, folder, "stock")
        flagged = train([FLAG, "layoutopt.report=" + report], arguments, folder, "flagged")
        with open(report) as source:
            print("\n" + source.read())

    ours, theirs = np.median(flagged["seconds"]), np.median(stock["seconds"])
    difference, allowed, within = largest_difference(stock["losses"], flagged["losses"])
    print("without: test error %.2f%%, %.1f ms a step" % (100 * stock["error"], 1e3 * theirs))
    print("with:    test error %.2f%%, %.1f ms a step" % (100 * flagged["error"], 1e3 * ours))
    if not within:
        print("demo: the losses differ by %.3g, more than the %.3g that rounding explains" % (difference, allowed))
    print("layoutopt: %.2f times faster a training step, largest loss difference %.2g" % (theirs / ours, difference))
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
