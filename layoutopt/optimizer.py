"""The optimizer that Theano runs: detect, cost, plan, rewrite, record, one after the other."""
import sys

import theano
from theano import gof
from theano.compile import optdb

from layoutopt.rewrites import batch_norm, inplace, lowered, order
from layoutopt.rewrites.activations import vectorise
from layoutopt.rewrites.apply import apply_plan
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.follow import Followed
from layoutopt.rewrites.fusion import fuse, nothing_fused
from layoutopt.rewrites.known_sizes import note_sizes
from layoutopt.rewrites.legacy import name_gradients
from layoutopt.rewrites.loops import convert_before, loops
from layoutopt.rewrites.normalisation import name_normalisations
from layoutopt.rewrites.padding import fold_padding
from layoutopt.rewrites.place import caller, place_of, places_of
from layoutopt.rewrites.plan import solve
from layoutopt.rewrites.record import conversions, converting_nodes, keep, record
from layoutopt.rewrites.region import find_region, has_sites
from layoutopt.rewrites.reorder import keep_axes_in_place
from layoutopt.rewrites.shapes import Assumed, Shapes
from layoutopt.rewrites.storage import remember, stored_in_c01b
from layoutopt.rewrites.tidy import drop_copies
from layoutopt.rewrites.told import insist
from layoutopt.rewrites.windows import name_windows

from . import first_call, written
from .blas import choose_kernels
from .device import find_target, on_gpu, why_not_gpu
from .explain import Report
from .runtime import prepare
from .verdicts import clock_for

# After specialize (2) and uncanonicalize (3), where gradients stand beside their forward graph; before UnShapeOpt (10), which
# takes shape inference away, and long before specialize_device (48.6), which turns abstract convolutions into CorrMM.
POSITION = 5.0


class LayoutOptimizer(gof.Optimizer):
    """Carries c01b through a graph wherever the plan finds that it pays.

    Never worse: a plan that is not cheaper leaves the graph alone. Idempotent: a second run finds no cheaper plan.
    """

    def apply(self, fgraph):
        settings = theano.config.layoutopt
        for loop in loops(fgraph, "layoutopt") if not standing_aside() else ():
            convert_before(fgraph, loop, settings, find_target(settings))
        if not has_sites(fgraph):
            return
        reason = standing_aside()
        report = Report(None, reason) if reason else Report(carry_layout(fgraph, settings), why_not_gpu())
        report.place = caller()
        keep(fgraph, report)
        written.write(report, theano.config.layoutopt.report, fgraph)
        if theano.config.layoutopt.verify == "first_call":
            first_call.watch()

    def print_summary(self, stream=sys.stdout, level=0, depth=-1):
        print("%s%s" % (" " * level, type(self).__name__), file=stream)


def standing_aside():
    """Why no graph can be rewritten in this process, or ''."""
    if not theano.config.cxx:
        return "there is no C++ compiler to build the kernels with; Theano's own fall-backs serve as before"
    return ""


def carry_layout(fgraph, settings, followed=None):
    """Rewrite a graph as the cheapest plan says, if that is cheaper than the graph as it is.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
        With at least one site.
    settings : theano.config.layoutopt
    followed : list, optional
        Gets (old node, new outputs, their layouts, place) for each node that is in c01b afterwards.

    Returns
    -------
    rewrites.record.Record
    """
    if not on_gpu():
        choose_kernels()  # before anything multiplies, be it to take its time
    target = find_target(settings)
    clock = None if on_gpu() else clock_for(settings, target)  # it times ops of the host
    shapes = Shapes(fgraph, target, Assumed(batch=settings.batch), clock)
    before = len(conversions(fgraph, shapes))
    edits = Edits(fgraph)
    for stage in (name_gradients, name_normalisations, name_windows, fold_padding, keep_axes_in_place):
        stage(edits, shapes, settings.constraints)
    region = find_region(fgraph, shapes, settings.constraints)
    plan = solve(region.problem)
    replaced, fused = None, nothing_fused()
    if plan.pays:
        replaced = apply_plan(fgraph, region, plan)
        insist(fgraph, edits, replaced)
        if not on_gpu():
            prepare(settings)
            vectorise(fgraph)
            fused = fuse(fgraph)
    elif edits.notes:
        edits.undo()
        region = find_region(fgraph, shapes, settings.constraints)  # of the graph as it was, for the record
    values = fused.values_now(replaced or ())
    if followed is not None:
        places = dict(zip((site.node for site in region.sites), places_of(region.sites)))
        followed += [(node, outputs, region.choices[node].c01b.gives, places.get(node) or place_of(node.outputs[0]))
                     for node, outputs in values]
    drop_copies(fgraph)
    if plan.pays:
        note_sizes(fgraph, shapes)
    if replaced:
        replaced = values + fused.sites_now(replaced, edits.notes)
    now = dict(replaced or ())
    remember(stored_in_c01b(region, plan) if plan.pays else [], [site.node for site in region.sites if site.node not in now])
    fgraph.attach_feature(Followed([now.get(site.node, site.node.outputs)[0] for site in region.sites],
                                   [node.outputs[0] for node in converting_nodes(fgraph)]))
    return record(fgraph, region, plan, replaced, shapes, before, edits.notes, settings.constraints)


def register():
    """Put the optimizer into Theano's database under its name and no other tag; a second call does nothing."""
    batch_norm.register()
    lowered.register()
    inplace.register()
    order.register()
    if "layoutopt" not in optdb.__position__:
        optdb.register("layoutopt", LayoutOptimizer(), POSITION)
