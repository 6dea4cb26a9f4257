"""The optimizer that Theano runs: detect, cost, plan, rewrite, record, one after the other."""
import sys

import theano
from theano import gof
from theano.compile import optdb

from layoutopt.kernels import base
from layoutopt.rewrites.activations import vectorise
from layoutopt.rewrites.apply import apply_plan
from layoutopt.rewrites.plan import solve
from layoutopt.rewrites.record import Recorded, conversions, record
from layoutopt.rewrites.region import find_region
from layoutopt.rewrites.shapes import Assumed, Shapes
from layoutopt.rewrites.tidy import drop_copies

from .calibrate import find_machine
from .explain import Report
from .runtime import keep_memory

# After specialize (2) and uncanonicalize (3), where gradients stand beside their forward graph; before UnShapeOpt (10), which
# takes shape inference away, and long before specialize_device (48.6), which turns abstract convolutions into CorrMM.
POSITION = 5.0


class LayoutOptimizer(gof.Optimizer):
    """Carries c01b through a graph wherever the plan finds that it pays.

    Never worse: a plan that is not cheaper leaves the graph alone. Idempotent: a second run finds no cheaper plan.
    """

    def apply(self, fgraph):
        if not theano.config.cxx:
            return  # the kernels are C++; Theano's own Python fall-backs serve as before
        settings = theano.config.layoutopt
        shapes = Shapes(fgraph, find_machine(settings.simd), Assumed(batch=settings.batch))
        region = find_region(fgraph, shapes, settings.constraints)
        if region is None:
            return
        base.configure(simd=settings.simd)
        if settings.memory == "keep":
            keep_memory()
        plan = solve(region.problem)
        before = len(conversions(fgraph, shapes))
        replaced = apply_plan(fgraph, region, plan) if plan.pays else None
        drop_copies(fgraph)
        if replaced is not None:
            vectorise(fgraph)
        result = record(fgraph, region, plan, replaced, shapes, before)
        fgraph.attach_feature(Recorded(result))
        _write_report(settings.report, Report(result))

    def print_summary(self, stream=sys.stdout, level=0, depth=-1):
        print("%s%s" % (" " * level, type(self).__name__), file=stream)


def _write_report(target, report):
    if target == "-":
        print(report, file=sys.stderr)
    elif target:
        with open(target, "a") as file:
            print(report, file=file)


def register():
    """Put the optimizer into Theano's database under its name and no other tag; a second call does nothing."""
    if "layoutopt" not in optdb.__position__:
        optdb.register("layoutopt", LayoutOptimizer(), POSITION)
