"""Convolutions and poolings in a graph: what they are, whether they qualify, and what they are in c01b.

A `Site` is one such node with the facts that constraints and costs are computed from. `SITES` has a line per op: how to read
it and how to build its replacement.
"""
from typing import Callable, NamedTuple

import numpy as np
from theano.compile.ops import Shape_i
from theano.gof import Apply, Constant
from theano.tensor import get_scalar_constant_value, stack
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.signal.pool import (AveragePoolGrad, DownsampleFactorMaxGradGrad,
                                        MaxPoolGrad as TheanoMaxPoolGrad, Pool)

from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.epilogue import FilterActsBias, MaxPoolBias
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad, MaxPoolGradGrad
from layoutopt.kernels.prob_pool import ProbMaxPool, ProbMaxPoolGrad
from layoutopt.kernels.stochastic_pool import StochasticMaxPool
from layoutopt.kernels.weighted_pool import WeightedMaxPool, WeightedMaxPoolGrad

from .constraints import (AVG_POOL, AVG_POOL_GRADIENT, FORWARD, IMAGE_GRADIENT, MAX_POOL, MAX_POOL_GRADIENT,
                          MAX_POOL_SECOND, PROB_POOL, PROB_POOL_GRADIENT, STOCHASTIC_POOL, WEIGHT_GRADIENT,
                          WEIGHTED_POOL, WEIGHTED_POOL_GRADIENT, Verdict, judge)
from .cost import ConvWork, PoolWork, winograd_tiles
from .layout import BC01, C01B, EITHER, bc01_order
from .versions import Choice, Version, as_written

# The c01b ops themselves, met in code written for them: they are in their layout already.
C01B_OPS = {FilterActs: FORWARD, FilterActsBias: FORWARD, ImageActs: IMAGE_GRADIENT, WeightActs: WEIGHT_GRADIENT,
            MaxPool: MAX_POOL, MaxPoolBias: MAX_POOL, MaxPoolGrad: MAX_POOL_GRADIENT, MaxPoolGradGrad: MAX_POOL_SECOND,
            AvgPool: AVG_POOL, AvgPoolGrad: AVG_POOL_GRADIENT, ProbMaxPool: PROB_POOL, ProbMaxPoolGrad: PROB_POOL_GRADIENT,
            StochasticMaxPool: STOCHASTIC_POOL, WeightedMaxPool: WEIGHTED_POOL, WeightedMaxPoolGrad: WEIGHTED_POOL_GRADIENT}


class Site(NamedTuple):
    """A convolution or pooling node.

    kind : see `rewrites.constraints`.
    facts : what is known of it; sizes are None where they are not.
    verdict : whether it qualifies for c01b.
    choice : its versions, with their seconds.
    timed : whether these are measured; else they are predicted.
    """

    node: Apply
    kind: str
    facts: dict
    verdict: Verdict
    choice: Choice
    timed: bool = False


class ConvRoles(NamedTuple):
    """Where images, filters and outputs of the forward convolution are found; an index into inputs, or 'out'."""

    kind: str
    images: object
    filters: object
    outputs: object
    build: Callable


def told(op):
    """What a convolution was told when it was made, as facts and the sizes of images and filters.

    CorrMM takes no sizes and never flips; ConvOp always flips, and its 'logical' shapes may spread what it is given.
    """
    if isinstance(op, ConvOp):
        facts = dict(convdim=2, dilation=(1, 1), groups=1, unshared=False, border_mode=op.out_mode,
                     stride=(op.dx, op.dy), flip=True,
                     spread=(op.imshp_logical, op.kshp_logical) != (op.imshp, op.kshp))
        return facts, (op.bsize,) + tuple(op.imshp), (op.nkern, op.imshp[0]) + tuple(op.kshp)
    facts = dict(convdim=getattr(op, "convdim", 2), dilation=tuple(op.filter_dilation), groups=op.num_groups,
                 unshared=op.unshared, border_mode=op.border_mode, stride=tuple(op.subsample),
                 flip=bool(getattr(op, "filter_flip", False)), spread=False)
    return facts, _numbers(getattr(op, "imshp", _UNTOLD)), _numbers(getattr(op, "kshp", _UNTOLD))


_UNTOLD = (None,) * 4


def _numbers(sizes):
    """Sizes as numbers; to Theano they may be constant variables, too."""
    return tuple(None if size is None else int(get_scalar_constant_value(size)) for size in sizes)


def conv_parameters(op):
    """The parameters of a Theano convolution for the c01b ops, which know Theano's border modes and rounding."""
    facts, _, _ = told(op)
    return dict(pad=facts["border_mode"], stride=facts["stride"], flip=facts["flip"], ceil_mode=False,
                groups=facts["groups"])


def _build_forward(node, inputs):
    return [FilterActs(**conv_parameters(node.op))(*inputs)]


def _build_weight_gradient(node, inputs):
    images, outputs, shape = inputs
    return WeightActs(**conv_parameters(node.op))(images, outputs, shape)[:1]


def _build_image_gradient(node, inputs):
    filters, outputs, shape = inputs
    return [ImageActs(**conv_parameters(node.op))(outputs, filters, shape)]


def _with_scalars(build):
    """`build` for the CorrMM gradients, whose rows and columns are scalars, absent where they can be computed."""

    def build_from_scalars(node, inputs):
        shape = inputs[2:] or node.op.infer_shape(node, [_bc01_shape(x) for x in inputs])[0][2:]
        return build(node, inputs[:2] + [stack(list(shape))])

    return build_from_scalars


def _bc01_shape(c01b):
    """The sizes of a C01B value in the order of its BC01 axes."""
    return [Shape_i(axis)(c01b) for axis in bc01_order(c01b.ndim)]


CONV_SITES = {
    AbstractConv2d: ConvRoles(FORWARD, 0, 1, "out", _build_forward),
    AbstractConv2d_gradWeights: ConvRoles(WEIGHT_GRADIENT, 0, "out", 1, _build_weight_gradient),
    AbstractConv2d_gradInputs: ConvRoles(IMAGE_GRADIENT, "out", 0, 1, _build_image_gradient),
    CorrMM: ConvRoles(FORWARD, 0, 1, "out", _build_forward),
    CorrMM_gradWeights: ConvRoles(WEIGHT_GRADIENT, 0, "out", 1, _with_scalars(_build_weight_gradient)),
    CorrMM_gradInputs: ConvRoles(IMAGE_GRADIENT, "out", 0, 1, _with_scalars(_build_image_gradient)),
    ConvOp: ConvRoles(FORWARD, 0, 1, "out", _build_forward),
}


class PoolRoles(NamedTuple):
    """What a pooling op is. Its tensors, which window, stride and pad follow, are needed in the layouts `needs`."""

    kind: str
    needs: tuple
    build: Callable  # (mode, parameters, tensors, their layouts) -> the result in C01B


def _build_max(op_class):
    return lambda mode, parameters, tensors, layouts: op_class(**parameters)(*tensors)


def _build_average(mode, parameters, tensors, layouts):
    return AvgPool(mode=mode, **parameters)(*tensors)


def _build_average_gradient(mode, parameters, tensors, layouts):
    images, gradient = tensors  # of the images the size alone is read, whatever layout they are in
    rows = 1 if layouts[0] == C01B else 2
    return AvgPoolGrad(mode=mode, **parameters)(gradient, stack([Shape_i(rows)(images), Shape_i(rows + 1)(images)]))


POOL_SITES = {
    Pool: PoolRoles(MAX_POOL, (C01B,), _build_max(MaxPool)),
    TheanoMaxPoolGrad: PoolRoles(MAX_POOL_GRADIENT, (C01B,) * 3, _build_max(MaxPoolGrad)),
    DownsampleFactorMaxGradGrad: PoolRoles(MAX_POOL_SECOND, (C01B,) * 3, _build_max(MaxPoolGradGrad)),
    AveragePoolGrad: PoolRoles(AVG_POOL_GRADIENT, (EITHER, C01B), _build_average_gradient),
}
AVERAGE = PoolRoles(AVG_POOL, (C01B,), _build_average)  # a Pool, too


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
        averages = type(node.op) is Pool and node.op.mode != "max"
        return _pool_site(node, shapes, constraints, AVERAGE if averages else POOL_SITES[type(node.op)])
    if type(node.op) in C01B_OPS:
        verdict = Verdict(False, "written in c01b by the program")
        return Site(node, C01B_OPS[type(node.op)], {}, verdict, Choice(as_written(node)))
    return None


def _merge(*sources):
    """Per-axis sizes, each from the first source that knows it."""
    return tuple(next((int(size) for size in sizes if size is not None), None) for sizes in zip(*sources))


def _conv_site(node, shapes, constraints, roles):
    role = {name: node.outputs[0] if which == "out" else node.inputs[which]
            for name, which in (("images", roles.images), ("filters", roles.filters), ("outputs", roles.outputs))}
    parameters, images, filters = told(node.op)
    facts = dict(dtype=_dtype(role.values()), **parameters)
    plain = facts["convdim"] == 2 and not facts["unshared"] and all(v.ndim == 4 for v in role.values())
    seconds = (0.0, 0.0)
    if plain:
        shapes.hint(role["images"], images)
        shapes.hint(role["filters"], filters)
        shapes.hint(role["images"], (None, _channels(shapes.present(role["filters"]), facts["groups"]), None, None))
        facts.update(_conv_sizes(images, filters, facts, role, shapes))
        work = _conv_work(roles.kind, facts, role, shapes)
        seconds = shapes.machine.stock_conv_seconds(work), shapes.machine.c01b_conv_seconds(work)
    else:
        facts.update(dict.fromkeys(("batch", "channels", "filters", "filter", "image", "output", "pads")))
    verdict = judge(roles.kind, facts, constraints)
    c01b = None
    if verdict.qualifies:
        needs = tuple(C01B if x.ndim == 4 else BC01 for x in node.inputs)
        c01b = Version(needs, (C01B,), seconds[1], lambda node, inputs, layouts: roles.build(node, inputs))
    return Site(node, roles.kind, facts, verdict, Choice(as_written(node, seconds[0]), c01b))


def _channels(filters, groups):
    """Channels of the images that filters of these sizes are for: they have those of one group."""
    return None if filters[1] is None else filters[1] * groups


def _conv_sizes(images, filters, facts, role, shapes):
    """The facts about sizes, of which the convolution was told `images` and `filters`: None where they are unknown."""
    images = _merge(images, shapes.present(role["images"]))
    filters = _merge(filters, shapes.present(role["filters"]))
    outputs = shapes.present(role["outputs"])
    channels = _channels(filters, facts["groups"])
    return dict(batch=_merge(images[:1], outputs[:1])[0], channels=_merge(images[1:2], (channels,))[0],
                filters=_merge(filters[:1], outputs[1:2])[0], filter=_pair(filters[2:]), image=_pair(images[2:]),
                output=_pair(outputs[2:]), pads=pads_of(facts["border_mode"], _pair(filters[2:])))


def _pair(sizes):
    return None if None in sizes else tuple(sizes)


def pads_of(border_mode, filter_shape):
    """(top, bottom, left, right), or None while a named mode's filter is unknown."""
    if border_mode == "valid":
        return (0, 0, 0, 0)
    if border_mode in ("half", "full"):
        if filter_shape is None:
            return None
        return tuple(side // 2 if border_mode == "half" else side - 1 for side in filter_shape for _ in range(2))
    axes = [(axis, axis) if isinstance(axis, (int, np.integer)) else tuple(axis) for axis in border_mode]
    return axes[0] + axes[1]


def _conv_work(kind, facts, role, shapes):
    (batch, channels, *image), (filters, _, *taps) = shapes.estimate(role["images"]), shapes.estimate(role["filters"])
    output, stride, groups = shapes.estimate(role["outputs"])[2:], facts["stride"], facts["groups"]
    return ConvWork(kind, batch, channels, filters, max(1, channels // groups) * taps[0] * taps[1], output[0] * output[1],
                    image[0] * image[1], stride[0] * stride[1], groups, winograd_tiles(kind, taps, stride, image, output))


def _dtype(variables):
    """Their dtype; of several, the one that stands in the way."""
    return next((v.dtype for v in variables if v.dtype != "float32"), "float32")


def _pool_site(node, shapes, constraints, roles):
    op, x, tensors = node.op, node.inputs[0], len(roles.needs)
    window, stride, pad = (_constant_pair(v) for v in node.inputs[tensors:])
    sizes = shapes.present(x)
    facts = dict(dtype=_dtype(node.inputs[:tensors]), mode=op.mode, rank=x.ndim, pooled_axes=op.ndim, window=window,
                 stride=stride, pad=pad, ceil_mode=not op.ignore_border)
    facts.update(dict(batch=sizes[0], channels=sizes[1], image=_pair(sizes[2:])) if x.ndim == 4
                 else dict.fromkeys(("batch", "channels", "image")))
    verdict = judge(roles.kind, facts, constraints)
    batch, *image = shapes.estimate(x)
    overlap = np.prod(window) / np.prod(stride) if window and stride else 1.0
    outputs = 1 / np.prod(stride) if stride else 1.0
    work = PoolWork(roles.kind, batch, int(np.prod(image)), overlap, outputs)
    c01b = None
    if verdict.qualifies:
        parameters = dict(ds=window, stride=stride, start=tuple(-p for p in pad), ceil_mode=facts["ceil_mode"])

        def build(node, inputs, layouts):
            return [roles.build(op.mode, parameters, inputs[:tensors], layouts[:tensors])]

        c01b = Version(roles.needs + (BC01,) * 3, (C01B,), shapes.machine.c01b_pool_seconds(work), build)
    return Site(node, roles.kind, facts, verdict,
                Choice(as_written(node, shapes.machine.stock_pool_seconds(work)), c01b))


def _constant_pair(variable):
    """A constant vector of 2 as a tuple, else None."""
    if not isinstance(variable, Constant) or variable.data.shape != (2,):
        return None
    return tuple(int(v) for v in variable.data)
