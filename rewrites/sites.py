"""Convolutions and max-poolings in a graph: what they are, whether they qualify, and what they are in c01b.

A `Site` is one such node with the facts that constraints and costs are computed from. `SITES` has a line per op: how to read
it and how to build its replacement.
"""
from typing import Callable, NamedTuple

import numpy as np
from theano.gof import Apply, Constant
from theano.tensor import get_scalar_constant_value
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.signal.pool import MaxPoolGrad as TheanoMaxPoolGrad, Pool

from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad

from .constraints import (FORWARD, IMAGE_GRADIENT, MAX_POOL, MAX_POOL_GRADIENT, WEIGHT_GRADIENT, Verdict, judge)
from .cost import ConvWork, PoolWork
from .layout import BC01, C01B
from .versions import Choice, Version, as_written

# The c01b ops themselves, met in code written for them: they are in their layout already.
C01B_OPS = {FilterActs: FORWARD, ImageActs: IMAGE_GRADIENT, WeightActs: WEIGHT_GRADIENT, MaxPool: MAX_POOL,
            MaxPoolGrad: MAX_POOL_GRADIENT}


class Site(NamedTuple):
    """A convolution or max-pooling node.

    kind : see `rewrites.constraints`.
    facts : what is known of it; sizes are None where they are not.
    verdict : whether it qualifies for c01b.
    choice : its versions, with predicted seconds.
    """

    node: Apply
    kind: str
    facts: dict
    verdict: Verdict
    choice: Choice


class ConvRoles(NamedTuple):
    """Where images, filters and outputs of the forward convolution are found; an index into inputs, or 'out'."""

    kind: str
    images: object
    filters: object
    outputs: object
    build: Callable


def conv_parameters(op):
    """The parameters of a Theano convolution for the c01b ops, which know Theano's border modes and rounding."""
    return dict(pad=op.border_mode, stride=tuple(op.subsample), flip=bool(op.filter_flip), ceil_mode=False)


def _build_forward(op, inputs):
    return [FilterActs(**conv_parameters(op))(*inputs)]


def _build_weight_gradient(op, inputs):
    return WeightActs(**conv_parameters(op))(*inputs)[:1]


def _build_image_gradient(op, inputs):
    filters, outputs, shape = inputs
    return [ImageActs(**conv_parameters(op))(outputs, filters, shape)]


CONV_SITES = {
    AbstractConv2d: ConvRoles(FORWARD, 0, 1, "out", _build_forward),
    AbstractConv2d_gradWeights: ConvRoles(WEIGHT_GRADIENT, 0, "out", 1, _build_weight_gradient),
    AbstractConv2d_gradInputs: ConvRoles(IMAGE_GRADIENT, "out", 0, 1, _build_image_gradient),
}
POOL_SITES = {Pool: (MAX_POOL, MaxPool, 1), TheanoMaxPoolGrad: (MAX_POOL_GRADIENT, MaxPoolGrad, 3)}


def read_site(node, shapes, constraints="layoutopt"):
    """The site that a node is, or None.

    Parameters
    ----------
    node : theano.Apply
    shapes : rewrites.shapes.Shapes
    constraints : str
        The set to judge it by.
    """
    if type(node.op) in CONV_SITES:
        return _conv_site(node, shapes, constraints, CONV_SITES[type(node.op)])
    if type(node.op) in POOL_SITES:
        return _pool_site(node, shapes, constraints, *POOL_SITES[type(node.op)])
    if type(node.op) in C01B_OPS:
        verdict = Verdict(False, "written in c01b by the program")
        return Site(node, C01B_OPS[type(node.op)], {}, verdict, Choice(as_written(node)))
    return None


def _told(sizes):
    """The imshp or kshp of a convolution as numbers; to Theano they may be constant variables, too."""
    return tuple(None if size is None else int(get_scalar_constant_value(size)) for size in sizes)


def _merge(*sources):
    """Per-axis sizes, each from the first source that knows it."""
    return tuple(next((int(size) for size in sizes if size is not None), None) for sizes in zip(*sources))


def _conv_site(node, shapes, constraints, roles):
    op = node.op
    role = {name: node.outputs[0] if which == "out" else node.inputs[which]
            for name, which in (("images", roles.images), ("filters", roles.filters), ("outputs", roles.outputs))}
    plain = op.convdim == 2 and not op.unshared and all(v.ndim == 4 for v in role.values())
    facts = dict(dtype=_dtype(role.values()), convdim=op.convdim, dilation=tuple(op.filter_dilation), groups=op.num_groups,
                 unshared=op.unshared, border_mode=op.border_mode, stride=tuple(op.subsample), flip=bool(op.filter_flip))
    seconds = (0.0, 0.0)
    if plain:
        shapes.hint(role["images"], _told(op.imshp))
        shapes.hint(role["filters"], _told(op.kshp))
        facts.update(_conv_sizes(op, role, shapes))
        work = _conv_work(roles.kind, facts["stride"], role, shapes)
        seconds = shapes.machine.stock_conv_seconds(work), shapes.machine.c01b_conv_seconds(work)
    else:
        facts.update(dict.fromkeys(("batch", "channels", "filters", "filter", "image", "output", "pads")))
    verdict = judge(roles.kind, facts, constraints)
    c01b = None
    if verdict.qualifies:
        needs = tuple(C01B if x.ndim == 4 else BC01 for x in node.inputs)
        c01b = Version(needs, (C01B,), seconds[1], lambda node, inputs, layouts: roles.build(node.op, inputs))
    return Site(node, roles.kind, facts, verdict, Choice(as_written(node, seconds[0]), c01b))


def _conv_sizes(op, role, shapes):
    """The facts about sizes: None, or pairs with None in them, where they are unknown."""
    images = _merge(_told(op.imshp), shapes.present(role["images"]))
    filters = _merge(_told(op.kshp), shapes.present(role["filters"]))
    outputs = shapes.present(role["outputs"])
    return dict(batch=_merge(images[:1], outputs[:1])[0], channels=_merge(images[1:2], filters[1:2])[0],
                filters=_merge(filters[:1], outputs[1:2])[0], filter=_pair(filters[2:]), image=_pair(images[2:]),
                output=_pair(outputs[2:]), pads=_pads(op.border_mode, _pair(filters[2:])))


def _pair(sizes):
    return None if None in sizes else tuple(sizes)


def _pads(border_mode, filter_shape):
    """(top, bottom, left, right), or None while a named mode's filter is unknown."""
    if border_mode == "valid":
        return (0, 0, 0, 0)
    if border_mode in ("half", "full"):
        if filter_shape is None:
            return None
        return tuple(side // 2 if border_mode == "half" else side - 1 for side in filter_shape for _ in range(2))
    axes = [(axis, axis) if isinstance(axis, (int, np.integer)) else tuple(axis) for axis in border_mode]
    return axes[0] + axes[1]


def _conv_work(kind, stride, role, shapes):
    (batch, channels, *image), (filters, _, *taps) = shapes.estimate(role["images"]), shapes.estimate(role["filters"])
    output = shapes.estimate(role["outputs"])[2:]
    return ConvWork(kind, batch, channels, filters, channels * taps[0] * taps[1], output[0] * output[1], image[0] * image[1],
                    stride[0] * stride[1])


def _dtype(variables):
    """Their dtype; of several, the one that stands in the way."""
    return next((v.dtype for v in variables if v.dtype != "float32"), "float32")


def _pool_site(node, shapes, constraints, kind, op_class, first_parameter):
    op, x = node.op, node.inputs[0]
    window, stride, pad = (_constant_pair(v) for v in node.inputs[first_parameter:])
    sizes = shapes.present(x)
    facts = dict(dtype=_dtype(node.inputs[:first_parameter]), mode=op.mode, rank=x.ndim, pooled_axes=op.ndim, window=window,
                 stride=stride, pad=pad, ceil_mode=not op.ignore_border)
    facts.update(dict(batch=sizes[0], channels=sizes[1], image=_pair(sizes[2:])) if x.ndim == 4
                 else dict.fromkeys(("batch", "channels", "image")))
    verdict = judge(kind, facts, constraints)
    batch, *image = shapes.estimate(x)
    overlap = np.prod(window) / np.prod(stride) if window and stride else 1.0
    work = PoolWork(kind, batch, int(np.prod(image)), overlap)
    c01b = None
    if verdict.qualifies:
        def build(node, inputs, layouts):
            start = tuple(-p for p in pad)
            return [op_class(window, stride, start, ceil_mode=facts["ceil_mode"])(*inputs[:first_parameter])]

        needs = (C01B,) * first_parameter + (BC01,) * 3
        c01b = Version(needs, (C01B,), shapes.machine.c01b_pool_seconds(work), build)
    return Site(node, kind, facts, verdict, Choice(as_written(node, shapes.machine.stock_pool_seconds(work)), c01b))


def _constant_pair(variable):
    """A constant vector of 2 as a tuple, else None."""
    if not isinstance(variable, Constant) or variable.data.shape != (2,):
        return None
    return tuple(int(v) for v in variable.data)
