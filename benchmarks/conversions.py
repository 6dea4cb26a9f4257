"""What layoutopt does to the networks of `examples/` at full size, and what it adds to Theano's optimization time.

    python benchmarks/conversions.py                     all of them
    python benchmarks/conversions.py resnet50 vgg16      some

The training steps are optimized and neither compiled nor run: a network takes Theano between seconds and a minute.
"""
import argparse
import collections
import contextlib
import gc
import os
import sys
import time

import theano
from theano.compile import SharedVariable
from theano.compile.function_module import FunctionMaker
from theano.gof import Constant
from theano.gof.link import Container, PerformLinker, map_storage
from theano.tensor.elemwise import DimShuffle

import layoutopt
from layoutopt import optimizer
from layoutopt.kernels import ToBC01, ToC01B, WeightActs

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "examples"))

from networks import NETWORKS  # noqa: E402
from training import training_step  # noqa: E402


def of_weights(variable):
    """Whether a value is a parameter, a parameter's gradient, or computed from such alone."""
    node = variable.owner
    if node is None:
        learnt = isinstance(variable, SharedVariable) and variable.dtype.startswith("float")  # not a generator's state
        return learnt or isinstance(variable, Constant)
    return isinstance(node.op, WeightActs) or all(of_weights(x) for x in node.inputs)


def converted(fgraph):
    """The values that a rewritten graph converts from one layout into the other."""
    return [node.inputs[0] for node in fgraph.toposort() if isinstance(node.op, (ToBC01, ToC01B))]


def activation_conversions(fgraph):
    """What is converted other than weights and their gradients: names of values, or of the ops that make them."""
    return sorted(_name(value) for value in converted(fgraph) if not of_weights(value))


def _name(value):
    while value.name is None and isinstance(value.owner.op, DimShuffle):  # of an input, say, that gets further axes
        value = value.owner.inputs[0]
    return value.name or str(value.owner.op)


class Unlinked(PerformLinker):
    """Makes functions that cannot be called: their graphs are optimized, and that is all."""

    def make_all(self, input_storage=None, output_storage=None, storage_map=None):
        order = self.schedule(self.fgraph)
        inputs, outputs, _ = map_storage(self.fgraph, order, input_storage, output_storage, storage_map)

        def refuse():
            raise RuntimeError("this function was not linked")

        def containers(variables, storage, readonly):
            return [Container(variable, cell, readonly) for variable, cell in zip(variables, storage)]

        return (refuse, containers(self.fgraph.inputs, inputs, False),
                containers(self.fgraph.outputs, outputs, True), [], order)


class Stopwatch:
    """Seconds of processor time spent in functions while they are watched, by name."""

    def __init__(self):
        self.seconds = collections.Counter()

    @contextlib.contextmanager
    def watch(self, owner, name):
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - started

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, function)


STAGES = ("find_region", "solve", "conversions", "apply_plan", "drop_copies", "vectorise", "record")


def optimize(network, flagged):
    """Optimizes a network's training step: (the function, seconds, seconds of our stages by name)."""
    mode = theano.Mode(Unlinked(), "fast_run")
    mode = mode.including("layoutopt") if flagged else mode.excluding("layoutopt")
    stopwatch = Stopwatch()
    gc.collect()  # graphs are full of cycles: whoever comes next would pay for the last one's
    with contextlib.ExitStack() as watches:
        watches.enter_context(stopwatch.watch(optimizer.LayoutOptimizer, "apply"))
        watches.enter_context(stopwatch.watch(FunctionMaker, "__init__"))
        for stage in STAGES:
            watches.enter_context(stopwatch.watch(optimizer, stage))
        step = training_step(network, mode=mode)
    return step, stopwatch.seconds.pop("__init__"), stopwatch.seconds


COLUMNS = (("network", "%-10s"), ("nodes", "%6s"), ("in c01b", "%9s"), ("activations", "%12s"), ("weights", "%8s"),
           ("before", "%9s"), ("after", "%9s"), ("Theano", "%8s"), ("ours", "%8s"), ("share", "%6s"))


def row(name):
    """The figures of one network, in the order of `COLUMNS`, and the seconds of our stages."""
    _, stock_seconds, _ = optimize(NETWORKS[name](), False)
    step, _, stages = optimize(NETWORKS[name](), True)
    fgraph, record = step.maker.fgraph, layoutopt.explain(step).record
    ours = stages.pop("apply")
    activations = len(activation_conversions(fgraph))
    in_c01b = sum(site.layout == "c01b" for site in record.sites)
    weights = len(converted(fgraph)) - activations
    return (name, len(fgraph.apply_nodes), "%d of %d" % (in_c01b, len(record.sites)), activations, weights,
            "%.2f s" % record.unchanged_seconds, "%.2f s" % record.planned_seconds, "%.1f s" % stock_seconds,
            "%.2f s" % ours, "%.1f%%" % (100 * ours / stock_seconds)), stages


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="of %s; all by default" % ", ".join(NETWORKS))
    parser.add_argument("--stages", action="store_true", help="seconds of each stage of layoutopt, too")
    args = parser.parse_args()
    theano.config.floatX = "float32"

    print("Training steps at full size: nodes; convolutions and poolings in c01b; activations and weights converted;")
    print("seconds predicted for sites and conversions, before and after; Theano's optimization, and what ours adds.")
    formats = [text for _, text in COLUMNS]
    print(" ".join(formats) % tuple(title for title, _ in COLUMNS))
    for name in args.networks or NETWORKS:
        figures, stages = row(name)
        print(" ".join(formats) % figures, flush=True)
        if args.stages:
            print("           ", ", ".join("%s %.2f s" % (stage, stages[stage]) for stage in STAGES), flush=True)


if __name__ == "__main__":
    main()
