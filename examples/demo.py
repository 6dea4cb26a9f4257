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
    flags = ["floatX=float32", "openmp=True", *flags]
    given = os.environ.get("THEANO_FLAGS", "").strip(",")
    command = [sys.executable, os.path.join(HERE, "lenet.py"), "--json", result, *arguments]
    print("\n$ THEANO_FLAGS=%s python examples/lenet.py %s" % (",".join(flags), " ".join(arguments)), flush=True)
    status = subprocess.call(command, env=dict(os.environ, THEANO_FLAGS=",".join(filter(None, [given, *flags]))))
    if status:
        sys.exit("demo: lenet.py ended with exit code %d" % status)
    with open(result) as source:
        return json.load(source)


def largest_difference(stock, flagged, longest_sum, windows=np.inf):
    """How far two series of losses lie apart, and how far rounding may take them: (difference, allowed, within).

    Both programs add the same numbers in another order. The longest sums, of the first layer's weight gradient, have
    `longest_sum` terms; their relative error is about the square root of that many roundings of u = 2^-24 (errors of random
    sign: Higham, Accuracy and Stability of Numerical Algorithms, section 2.8). Gradients move the loss by what it falls and
    rises along the way, so a loss may be off by that relative error of the first loss plus the way since.

    Two pixels of one pooling window may be equal but for rounding; which of them gets the gradient is then a coin's toss in
    either program. A gradient adds up the shares of `windows` windows, which are of random sign, so that one that tips
    moves it by about a part in the square root of their number (1.5 was met), and the loss by less than that of its way from the
    second step on (a fiftieth was met).
    """
    stock, flagged = np.array(stock), np.array(flagged)
    since = np.concatenate([[0], np.cumsum(np.abs(np.diff(stock)))])
    allowed = 2.0 ** -24 * np.sqrt(longest_sum) * (stock[0] + since) + windows ** -0.5 * since
    difference = np.abs(stock - flagged)
    worst = np.argmax(difference / allowed)
    return float(difference.max()), float(allowed[worst]), bool((difference <= allowed).all())


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
    difference, allowed, within = largest_difference(stock["losses"], flagged["losses"], args.batch * 24 * 24,
                                                     args.batch * args.nkerns[1] * 4 * 4)
    print("without: test error %.2f%%, %.1f ms a step" % (100 * stock["error"], 1e3 * theirs))
    print("with:    test error %.2f%%, %.1f ms a step" % (100 * flagged["error"], 1e3 * ours))
    if not within:
        print("demo: the losses differ by %.3g, more than the %.3g that rounding explains" % (difference, allowed))
    print("layoutopt: %.2f times faster a training step, largest loss difference %.2g" % (theirs / ours, difference))
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
