"""What was decided about a graph and what it cost: plain data, taken before and after the rewrite."""
from typing import List, NamedTuple, Optional, Tuple

from theano.compile import SharedVariable
from theano.gof.toolbox import Feature
from theano.tensor.elemwise import DimShuffle

from layoutopt.kernels.base import C01bOp
from layoutopt.kernels.relayout import ToBC01, ToC01B

from .carriers import why_not
from .carriers.dimshuffle import moves_data
from .drawing import Drawing, draw, nodes_in_c01b
from .hints import hint_of_batch, hints_of
from .layout import BC01, C01B, bc01_order, c01b_order
from .measured import time_conversions
from .place import place_of, places_of
from .region import SITE_OPS
from .sites import C01B_OPS
from .storage import is_stored
from .told import ToldSizes


MOST_ENDS = 3  # named for each conversion


class SiteRecord(NamedTuple):
    """A convolution or pooling: what it was, what became of it and why.

    place : file and line of the program, or ''.
    sizes : its sizes in words, '?' where unknown.
    layout : 'bc01' or 'c01b', as it runs now.
    op : the op that runs.
    reason : the verdict, or why a qualifying site stays.
    bc01_seconds, c01b_seconds : what the plan counted with; None where there is no such version.
    note : what other part of the graph it has taken in, or ''.
    timed : whether the seconds were measured when the function was compiled.
    facts : its sizes and parameters (`rewrites.sites`), None where unknown.
    qualifies : the verdict.
    hints : what would change the outcome, in words.
    """

    kind: str
    place: str
    sizes: str
    layout: str
    op: str
    reason: str
    bc01_seconds: float
    c01b_seconds: Optional[float]
    note: str = ""
    timed: bool = False
    facts: dict = {}
    qualifies: bool = True
    hints: Tuple[str, ...] = ()


class RecognisedRecord(NamedTuple):
    """An op of ours, no site, for what the program wrote with others.

    op : its name.
    place : file and line of the program, or ''.
    layout : 'bc01' or 'c01b', as it runs now.
    seconds : what the plan counted with.
    note : what it was.
    """

    op: str
    place: str
    layout: str
    seconds: float
    note: str


class ConversionRecord(NamedTuple):
    """A conversion that is left.

    value : what is converted, by name or by the op that produces it.
    to : 'bc01' or 'c01b'.
    bytes : size of the value, estimated where it is not known.
    produced_by, needed_by : the two sides that force it.
    seconds : what the plan counted with.
    ends : the nearest ops that could not be in c01b, for which the layout ends here, with their places and reasons.
    """

    value: str
    to: str
    bytes: int
    produced_by: str
    needed_by: str
    seconds: float
    ends: Tuple[str, ...] = ()


class Record(NamedTuple):
    """What the optimizer did to one graph.

    conversions_before : the program's own, data-moving dimshuffles included.
    unchanged_seconds, planned_seconds, bound_seconds : predicted cost of the region as it was, as it is, and the lower
        bound that the flow proves.
    applied : False where the plan was not cheaper and the graph was left alone.
    drawing : the graph as it is after the rewrite.
    hint : what another batch size would change, in words.
    recognised : what else became an op of ours.
    """

    sites: List[SiteRecord]
    conversions: List[ConversionRecord]
    conversions_before: int
    unchanged_seconds: float
    planned_seconds: float
    bound_seconds: float
    applied: bool
    drawing: Drawing = Drawing([], [])
    hint: str = ""
    recognised: Tuple[RecognisedRecord, ...] = ()


class Recorded(Feature):
    """Keeps a report with its function graph, and with the graph's clones."""

    def __init__(self, report):
        self.report = report


def keep(fgraph, report):
    """Keep a report with a function graph. Its inputs have it, too: a copy of the function (f.copy) has theirs copied and no
    features."""
    fgraph.attach_feature(Recorded(report))
    for x in fgraph.inputs:
        x.tag.layoutopt_report = report


def recorded(fgraph):
    """The report of a function graph, or None."""
    kept = [feature.report for feature in fgraph._features if isinstance(feature, Recorded)]
    kept += [x.tag.layoutopt_report for x in fgraph.inputs if hasattr(x.tag, "layoutopt_report")]
    return kept[0] if kept else None


def record(fgraph, region, plan, replaced, shapes, conversions_before, notes=(), constraints="layoutopt"):
    """The record of one run, of the graph as it is after `replaced` = `apply_plan(...)`.

    Parameters
    ----------
    replaced : list of (old node, new outputs), or None if the plan was not carried out.
    conversions_before : int
        `len(conversions(...))` of the graph as it was.
    notes : dict of theano.Apply to str
        See `rewrites.edits`.
    """
    now_c01b = {old: new for old, new in replaced or ()}
    sites = [_site_record(site, now_c01b.get(site.node), dict(notes).get(site.node, ""), place, shapes.machine, constraints)
             for site, place in zip(region.sites, places_of(region.sites))]
    if shapes.clock is not None:
        time_conversions([node.inputs[0] for node in converting_nodes(fgraph) if _direction(node) == C01B] +
                         [node.outputs[0] for node in converting_nodes(fgraph) if _direction(node) == BC01], shapes)
    return Record(sites, conversions(fgraph, shapes, region.choices), conversions_before, plan.unchanged, plan.seconds, plan.bound,
                  replaced is not None, _drawing(fgraph, region, replaced or ()),
                  hint_of_batch(region.sites, [site.layout for site in sites], shapes.machine, constraints),
                  _recognised(dict(notes), region, now_c01b))


def _recognised(notes, region, now_c01b):
    """The `RecognisedRecord` of each node with a note that has an op of ours and is no site."""
    sites = {site.node for site in region.sites}
    found = [node for node in notes if isinstance(node.op, C01bOp) and node not in sites]
    layouts = [C01B if node in now_c01b else BC01 for node in found]
    return tuple(RecognisedRecord(type(node.op).__name__, place_of(node.outputs[0]), layout,
                                  region.choices[node].version(layout).seconds, notes[node])
                 for node, layout in zip(found, layouts))


def _drawing(fgraph, region, replaced):
    now = {old: new for old, new in replaced}
    written_so = {site.node for site in region.sites if type(site.node.op) in C01B_OPS}
    c01b = nodes_in_c01b(replaced, region.choices, _converts) | written_so
    sites = {_site_node(now.get(site.node, site.node.outputs)[0]): number for number, site in enumerate(region.sites)}
    converting = converting_nodes(fgraph)
    c01b |= {node for node in converting if _direction(node) == C01B}
    return draw(fgraph, c01b, sites, {node: number for number, node in enumerate(converting)}, _producer, place_of)


def _site_node(variable):
    """The convolution or pooling that computes a value, flags and shape of which may have been set behind it."""
    node = variable.owner
    while type(node.op) not in SITE_OPS and node.inputs[0].owner is not None:
        node = node.inputs[0].owner
    return node


def _site_record(site, new_outputs, note, place, machine, constraints):
    node, c01b = site.node, site.choice.c01b
    own = type(node.op) in C01B_OPS
    layout = C01B if own or new_outputs is not None else BC01
    op = type((node if new_outputs is None else _site_node(new_outputs[0])).op).__name__
    reason = site.verdict.reason
    if site.verdict.qualifies and layout == BC01:
        reason = "qualifies, but does not pay here: %s as it is, %s in c01b, conversions not counted" % (
            milliseconds(site.choice.bc01.seconds), milliseconds(c01b.seconds))
    return SiteRecord(site.kind, place, sizes_of(site.facts), layout, op, reason, site.choice.bc01.seconds,
                      None if c01b is None else c01b.seconds, note, site.timed, site.facts, site.verdict.qualifies,
                      hints_of(site, layout, machine, constraints))


def milliseconds(seconds):
    return "%.3g ms" % (1e3 * seconds)


def sizes_of(facts):
    """'500 x 32 x 12 x 12 images, 64 filters 5 x 5, pad 0, stride 1' and the like."""
    def show(value):
        if value is None:
            return "?"
        if isinstance(value, tuple):
            return show(value[0]) if len(set(value)) == 1 else " x ".join(show(v) for v in value)
        return str(value)

    def pair(value):
        return "? x ?" if value is None else " x ".join(map(str, value))

    if not facts:
        return ""
    words = ["%s x %s x %s images" % (show(facts["batch"]), show(facts["channels"]), pair(facts["image"]))]
    if "filters" in facts:
        words.append("%s filters %s" % (show(facts["filters"]), pair(facts["filter"])))
        words += ["%d groups" % facts["groups"]] if facts["groups"] > 1 else []
        words.append("pad %s" % (show(facts["pads"]) if facts["pads"] else facts["border_mode"]))
    else:
        words.append("window %s" % pair(facts["window"]))
        words.append("pad %s" % show(facts["pad"]))
    return ", ".join(words + ["stride %s" % show(facts["stride"])])


def conversions(fgraph, shapes, choices=None):
    """The `ConversionRecord` of every conversion in a graph, ours and the program's own; with the nodes' `choices`, why there."""
    return [_conversion(node, shapes, choices) for node in converting_nodes(fgraph)]


def converting_nodes(fgraph):
    """The nodes of a graph that convert, in topological order."""
    return [node for node in fgraph.toposort() if _converts(node)]


def _converts(node):
    """Whether a node turns a value from one layout into the other: by our ops, or by a dimshuffle of rank 3 and up, which is
    a view that whoever needs it contiguous copies, unless it is only stored."""
    if isinstance(node.op, DimShuffle):
        return _direction(node) is not None and not is_stored(node)
    return isinstance(node.op, (ToC01B, ToBC01))


def _direction(node):
    """The layout into which a conversion, or a data-moving dimshuffle of its pattern, turns its operand; else None."""
    if isinstance(node.op, ToC01B):
        return C01B
    if isinstance(node.op, ToBC01):
        return BC01
    order, ndim = tuple(node.op.new_order), len(node.op.new_order)
    if ndim < 3 or "x" in order or not moves_data(order, node.inputs[0].broadcastable):
        return None
    return {c01b_order(ndim): C01B, bc01_order(ndim): BC01}.get(order)


def _conversion(node, shapes, choices):
    value, to = node.inputs[0], _direction(node)
    source = _before_transfer(value)
    in_bc01 = value if to == C01B else node.outputs[0]
    users = sorted({"an output" if client == "output" else type(client.op).__name__ for client in _users(node.outputs[0])})
    return ConversionRecord(source.name or _producer(source), to, shapes.bytes(value), _producer(source), ", ".join(users),
                            shapes.conversion_seconds(in_bc01, to), () if choices is None else _ends(node, to, choices))


def _users(variable):
    """The nodes, or "output", that read a value, also through a look at its sizes."""
    for client, index in variable.clients:
        if client != "output" and isinstance(client.op, ToldSizes):
            yield from _users(client.outputs[0]) if index == 0 else ()
        else:
            yield client


def _ends(node, to, choices):
    """What made the layout end at a conversion: the nearest ops on its side in bc01 that could not be in c01b, or that are faster
    in bc01, with reasons. Where the layout has begun again, nobody ended it."""
    reached, frontier, ends = {None, "output"}, [node], []
    while frontier and len(ends) < MOST_ENDS:
        here = frontier.pop(0)
        if here is node or (choices[here].c01b is not None and type(here.op) not in SITE_OPS):
            values = [x for x in (here.inputs if to == C01B else here.outputs) if getattr(x, "ndim", 0) >= 2]
            beyond = [x.owner for x in values] if to == C01B else [client for x in values for client, _ in x.clients]
            frontier += [other for other in dict.fromkeys(beyond) if other not in reached]
            reached.update(beyond)
        elif not _converts(here) and type(here.op) not in C01B_OPS:
            ends.append(_end(here, choices[here]))
    return tuple(ends)


def _end(node, choice):
    out = node.outputs[0]
    if type(node.op) in SITE_OPS:
        reason = "it does not qualify" if choice.c01b is None else "c01b does not pay there"
    else:
        reason = why_not(node)
    return "%s: %s" % (" at ".join(filter(None, (_producer(out), place_of(out)))), reason)


def _before_transfer(value):
    """The value on the GPU that this is on the host, where it is that: a shared variable of a GPU program."""
    node = value.owner
    return node.inputs[0] if node is not None and type(node.op).__name__ == "HostFromGpu" else value


def _producer(variable):
    if variable.owner is None:
        return "shared variable" if isinstance(variable, SharedVariable) else "input"
    op = variable.owner.op
    scalar_op = getattr(op, "scalar_op", None)
    return type(op).__name__ + (" %s" % scalar_op if scalar_op is not None else "")
