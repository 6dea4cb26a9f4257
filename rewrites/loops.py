"""Loops: what does not change from step to step is converted once, before the loop.

A Scan compiles its inner graph as a function of its own, by the same optimizers, so that convolutions in it become c01b
ops like any others. But its filters, the same in every step, come in bc01 and would be converted in every step. So they
are handed in converted, and a dimshuffle in the inner graph says what they are in bc01; in c01b that dimshuffle is no
operation (`carriers.dimshuffle`).
"""
from theano.gof import Constant, FunctionGraph
from theano.gof.graph import io_toposort
from theano.scan_module.scan_op import Scan
from theano.scan_module.scan_utils import clone
from theano.tensor import TensorType
from theano.tensor.opt import ShapeFeature

from layoutopt.kernels.relayout import to_c01b

from .layout import C01B, bc01_order, is_view, rotate
from .plan import needed, solve
from .region import SITE_OPS, find_region
from .shapes import Assumed, Shapes


def loops(fgraph, tag):
    """The Scan nodes of a graph whose inner graphs have convolutions or poolings, and will be optimized under `tag`."""
    return [node for node in fgraph.apply_nodes if type(node.op) is Scan and _includes(node.op, tag) and has_sites(node.op)]


def has_sites(op):
    return any(type(node.op) in SITE_OPS for node in io_toposort(op.inputs, op.outputs))


def _includes(op, tag):
    query = op.mode_instance.provided_optimizer
    return tag in (getattr(query, "include", None) or ()) and tag not in (getattr(query, "exclude", None) or ())


def convert_before(fgraph, node, settings, machine):
    """Convert before a loop what its inner graph would convert in every step.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
    node : theano.Apply
        One of its `loops`.
    settings : theano.config.layoutopt
    machine : Machine or GpuMachine
        What the inner graph will be planned for.

    Returns
    -------
    int
        How many values are converted before the loop now.
    """
    op = node.op
    inner = op.inner_non_seqs(op.inputs)
    turned = [i for i in turned_in_every_step(fgraph, node, settings, machine) if i in inner]
    if not turned:
        return 0
    outer = {i: o for i, o in zip(inner, op.outer_non_seqs(node.inputs))}
    inputs, outer_inputs, views = list(op.inputs), list(node.inputs), {}
    for variable in turned:
        given = TensorType(variable.dtype, rotate(variable.broadcastable))(variable.name)
        views[variable] = given.dimshuffle(*bc01_order(variable.ndim))
        inputs[inputs.index(variable)] = given
        outer_inputs[len(outer_inputs) - len(inner) + inner.index(variable)] = to_c01b(outer[variable])
    new = Scan(inputs, clone(op.outputs, replace=views), op.info)(*outer_inputs, return_list=True)
    fgraph.replace_all_validate(list(zip(node.outputs, new)), reason="layoutopt: converted before the loop")
    return len(turned)


def turned_in_every_step(fgraph, node, settings, machine):
    """The inner inputs of a loop that its inner graph wants in c01b and nowhere in bc01, by the machine's costs."""
    graph = FunctionGraph(node.op.inputs, node.op.outputs, clone=True, features=[ShapeFeature()])
    shapes = Shapes(graph, machine, Assumed(batch=settings.batch))
    _hint(node, graph.inputs, Shapes(fgraph), shapes)
    region = find_region(graph, shapes, settings.constraints)
    plan = solve(region.problem)
    if not plan.pays:
        return []
    wanted = {variable for variable, value in zip(region.variables, region.problem.values)
              if needed(region.problem, value, plan.layouts) == {C01B}}
    return [x for x, copy in zip(node.op.inputs, graph.inputs) if copy in wanted and not is_view(x.broadcastable)]


def _hint(node, inputs, outer_shapes, shapes):
    """Tell the inner graph the sizes that the outer graph knows of what the loop uses in every step as a whole."""
    op = node.op
    first = len(op.inputs) - len(op.inner_non_seqs(op.inputs))
    for copy, outer in zip(inputs[first:], op.outer_non_seqs(node.inputs)):
        if getattr(copy, "ndim", 0) and not isinstance(outer, Constant):
            shapes.hint(copy, outer_shapes.present(outer))
