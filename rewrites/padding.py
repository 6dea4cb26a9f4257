"""Zeros that a program puts around images become the pad of the convolution or pooling that reads them.

    conv(set(alloc(0), [:, :, t:h+t, l:w+l], x), f)                =  conv with pads (t, b), (l, r) more, of (x, f)
    weight gradient(set(alloc(0), [:, :, t:h+t, l:w+l], x), g)     =  weight gradient with these pads more, of (x, g)
    image gradient(f, g)[:, :, t:h+t, l:w+l]                       =  image gradient with these pads more, of (f, g)

and the same where the zeros are joined to the images' sides, of which the gradient is a Split. The last line holds for any
crop. Sums over windows and averages that count the zeros are like convolutions, but have one pad for two sides. A maximum is
not: its pads are below every number, and the zeros are not.

The convolution then reads x, which is smaller, and skips what it would multiply by zero. Theano's own CorrMM takes all pads,
too, so a convolution that the plan leaves in bc01 gains as well.
"""
from theano import config
from theano.gof import Constant
from theano.tensor import as_tensor_variable, stack
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.signal.pool import AveragePoolGrad, Pool

from .margins import CROPS, PADS, added, cropped, is_made, unpadded
from .shapes import PROVEN
from .sites import CONV_SITES, pads_of, read_site, told
from .sums import Sums
from .told import insisted

_PARAMETERS = ("subsample", "filter_flip", "filter_dilation", "num_groups", "unshared")


def fold_padding(edits, shapes, constraints="layoutopt"):
    """Fold zeros around images into pads, and crops of gradients, where the result qualifies for c01b.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        See `rewrites.constraints`.
    """
    candidates = {node for node in edits.fgraph.apply_nodes if type(node.op) in _FOLDS and _is_candidate(node)}
    sums = Sums(shapes)
    for node in edits.fgraph.toposort() if candidates else ():
        found = _FOLDS[type(node.op)](node, shapes, sums) if node in candidates else None
        if found:
            old, new, pads = found
            if read_site(new.owner, shapes, constraints).verdict.qualifies:
                edits.replace(old, new, "zeros around the images are part of the pad: %s" % (pads,), _told(node, pads, edits))


def _is_candidate(node):
    """Whether a node on images reads what a rule may read, or is read by such."""
    if node.inputs[0].ndim != 4 or node.outputs[0].ndim != 4:
        return False
    crops = any(client != "output" and type(client.op) in CROPS for client, _ in node.outputs[0].clients)
    return crops or any(x.owner is not None and type(x.owner.op) in PADS for x in node.inputs[:2])


# ---------------------------------------------------------------------------------------------------------------------
# Each gives (old variable, new variable, pads), or None where there is nothing to fold.


def _convolution(node, shapes, sums):
    roles, inputs, old = CONV_SITES[type(node.op)], list(node.inputs), node.outputs[0]
    if roles.images == "out":
        old, pads = cropped(old, sums)
        inputs[2:] = _smaller(inputs[2:], [sum(pad) for pad in pads])
    else:
        inputs[roles.images], pads = unpadded(inputs[roles.images], sums)
    op = _with_pads(node, roles, pads, shapes)
    if op is None:
        return None
    shape = [inputs[2:]] if len(inputs) == 4 else inputs[2:]  # CorrMM takes rows and columns as one argument, two inputs
    return old, op(*inputs[:2] + shape), pads


def _with_pads(node, roles, pads, shapes):
    """A convolution's op with these pads besides its own; None if there are none, or its own are not known."""
    op = node.op
    facts, told_images, told_filters = told(op)
    # ConvOp alone checks what it was told when it runs; the others pad for the filters at hand, whatever they were told.
    sides = told_filters[2:] if type(op) is ConvOp else _sides_of_filters(node, roles, shapes)
    own = pads_of(facts["border_mode"], None if None in sides else sides)
    if own is None or min(own) < 0 or facts["spread"] or not any(map(any, pads)):
        return None
    border_mode = added((own[:2], own[2:]), pads)
    # With conv.assert_shape Theano's ops assert what they are told, by another exception than ConvOp's, and others have done so.
    sizes = {} if config.conv.assert_shape else dict(imshp=_without(pads, told_images), kshp=told_filters)
    if type(op) is ConvOp:
        return AbstractConv2d(border_mode=border_mode, subsample=(op.dx, op.dy), **sizes)
    parameters = {name: getattr(op, name) for name in _PARAMETERS if hasattr(op, name)}
    if hasattr(op, "imshp"):
        parameters.update(sizes)
    return type(op)(border_mode=border_mode, **parameters)


def _sides_of_filters(node, roles, shapes):
    """Rows and columns of a convolution's filters, None where they are not proven."""
    if roles.filters != "out":
        return shapes.sizes(node.inputs[roles.filters], PROVEN)[2:]
    sizes = node.inputs[2:]  # that a gradient of filters is asked for
    if len(sizes) == 1:
        sizes = sizes[0].owner.inputs if is_made(sizes[0]) else [sizes[0][axis] for axis in range(2)]
    sides = [shapes.origin(size) for size in sizes] or [None, None]
    return tuple(side if isinstance(side, int) else None for side in sides)


def _told(node, pads, edits):
    """What a convolution insists on, of images without these margins; None for a pooling."""
    if type(node.op) not in CONV_SITES:
        return None
    told_sizes = insisted(node, edits)
    return told_sizes._replace(images=told_sizes.images and _without(pads, told_sizes.images))


def _without(pads, images):
    """Sizes of images that the program told, less these margins."""
    return images[:2] + tuple(None if size is None else size - sum(pad) for size, pad in zip(images[2:], pads))


def _smaller(shape, margins):
    """Rows and columns less these margins, as a convolution takes them: two scalars, a vector, or nothing."""
    if len(shape) != 1:
        return [size - margin for size, margin in zip(shape, margins)]
    if is_made(shape[0]):
        return [stack([size - margin if margin else size for size, margin in zip(shape[0].owner.inputs, margins)])]
    return [as_tensor_variable(shape[0].data - margins if isinstance(shape[0], Constant) else shape[0] - margins)]


def _average(node, shapes, sums):
    """A sum or average, or its gradient, of which the images are read for their size alone."""
    op, (images, *others, pad) = node.op, node.inputs
    images, pads = unpadded(images, sums)
    old, crop = cropped(node.outputs[0], sums) if type(op) is AveragePoolGrad else (node.outputs[0], pads)
    counts_zeros = op.mode != "max" and op.ndim == 2 and op.ignore_border and isinstance(pad, Constant) and not pad.data.any()
    one_for_two = any(map(any, pads)) and all(before == after for before, after in pads)
    if not counts_zeros or not one_for_two or crop != pads:
        return None
    mode = "sum" if op.mode == "sum" else "average_inc_pad"
    return old, type(op)(True, mode, 2)(images, *others, [before for before, _ in pads]), pads


# ConvOp has no pads of its own: it becomes an AbstractConv2d.
_FOLDS = dict.fromkeys((AbstractConv2d, AbstractConv2d_gradWeights, AbstractConv2d_gradInputs,
                        CorrMM, CorrMM_gradWeights, CorrMM_gradInputs, ConvOp), _convolution)
_FOLDS.update(dict.fromkeys((Pool, AveragePoolGrad), _average))
