"""Sizes that the old ConvOp was told are insisted on where another op stands in its place.

Theano's ConvOp may be told sizes of images and filters when it is made, and raises ValueError if they are others when it runs.
AbstractConv2d, CorrMM and our ops compute with the sizes that there are; so one of their operands passes through a node that
looks at both. Nothing is proven away: Theano takes for proven what an AbstractConv2d was told, which nobody checks.

That is done after planning, of which it is no part: the node moves no data and is in the layout of the operand.
"""
from typing import NamedTuple, Optional, Tuple

import numpy as np
from theano.gof import Apply, Op
from theano.tensor import TensorType, constant
from theano.tensor.nnet.conv import ConvOp

from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs

from .layout import rotate
from .sites import CONV_SITES, told


class Told(NamedTuple):
    """Sizes of the values of a convolution in BC01, None where any will do; None for what was not told, or no operand is."""

    images: Optional[Tuple] = None
    filters: Optional[Tuple] = None
    outputs: Optional[Tuple] = None


# What the first two operands of the c01b ops are; of Theano's, CONV_SITES says it.
_OPERANDS = {FilterActs: ("images", "filters"), ImageActs: ("outputs", "filters"), WeightActs: ("images", "outputs")}


class ToldSizes(Op):
    """A value, if it and another one have the sizes that were told: ``ToldSizes()(value, other, sizes)``.

    Parameters
    ----------
    value, other : tensor variables, on the host or on a GPU
    sizes : int64 vector
        Those of `value`, then those of `other`; -1 where any will do.

    Returns
    -------
    variable
        `value` itself.

    Raises
    ------
    TypeError
        From the call, where `sizes` is no int64 vector.
    ValueError
        When it runs, for another size, as ConvOp's C code does; where `sizes` are not as many as there are axes.
    """

    __props__ = ()
    view_map = {0: [0]}
    check_input = False

    def make_node(self, value, other, sizes):
        if (sizes.ndim, sizes.dtype) != (1, "int64"):
            raise TypeError("ToldSizes: sizes must be an int64 vector, got %s" % sizes.type)
        return Apply(self, [value, other, sizes], [value.type()])

    def perform(self, node, inputs, output_storage):
        value, other, sizes = inputs
        actual = tuple(value.shape) + tuple(other.shape)
        if len(sizes) != len(actual):
            raise ValueError("ToldSizes: %d sizes for %d axes" % (len(sizes), len(actual)))
        for size, told_size in zip(actual, sizes.tolist()):
            if told_size not in (-1, size):
                raise ValueError("a convolution was told of a size of %d and got %d" % (told_size, size))
        output_storage[0][0] = value

    def c_code(self, node, name, inputs, outputs, sub):
        if not all(isinstance(x.type, TensorType) for x in node.inputs):
            raise NotImplementedError("on a GPU it is `perform` that looks")
        return """
        {
            PyArrayObject* tensors[2] = {%(value)s, %(other)s};
            npy_intp next = 0, axes = PyArray_NDIM(tensors[0]) + PyArray_NDIM(tensors[1]);
            if (PyArray_SIZE(%(sizes)s) != axes) {
                PyErr_Format(PyExc_ValueError, "ToldSizes: %%lld sizes for %%lld axes", (long long)PyArray_SIZE(%(sizes)s),
                             (long long)axes);
                %(fail)s
            }
            for (int i = 0; i < 2; ++i)
                for (int axis = 0; axis < PyArray_NDIM(tensors[i]); ++axis, ++next) {
                    const npy_int64 told = *static_cast<npy_int64*>(PyArray_GETPTR1(%(sizes)s, next));
                    if (told == -1 || told == PyArray_DIM(tensors[i], axis)) continue;
                    PyErr_Format(PyExc_ValueError, "a convolution was told of a size of %%lld and got %%lld",
                                 (long long)told, (long long)PyArray_DIM(tensors[i], axis));
                    %(fail)s
                }
        }
        Py_XDECREF(%(out)s);
        %(out)s = %(value)s;
        Py_INCREF(%(out)s);
        """ % dict(zip(("value", "other", "sizes"), inputs), out=outputs[0], fail=sub["fail"])

    def c_code_cache_version(self):
        return (1,)

    def infer_shape(self, node, shapes):
        return shapes[:1]

    def connection_pattern(self, node):
        return [[True], [False], [False]]


def insisted(node, edits):
    """What a convolution, or the ConvOp in whose place it stands, was told and insists on: `Told`.

    Parameters
    ----------
    node : theano.Apply
    edits : rewrites.edits.Edits
    """
    if isinstance(node.op, ConvOp):
        return Told(*told(node.op)[1:])
    return edits.told.get(node, Told())


def insist(fgraph, edits, replaced):
    """Have the convolutions that stand in the place of a ConvOp look at the sizes that it was told.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
        After planning.
    edits : rewrites.edits.Edits
    replaced : list of (old node, new outputs)
        What is in c01b now.
    """
    now = dict(replaced)
    for node in [node for node in now if isinstance(node.op, ConvOp)] + list(edits.told):
        here = _convolution(now[node][0]) if node in now else node
        if here in fgraph.apply_nodes:
            _insist(fgraph, here, insisted(node, edits))


def _convolution(output):
    """The node of a c01b convolution, whose output may have other broadcast flags by now."""
    while type(output.owner.op) not in _OPERANDS:
        output = output.owner.inputs[0]
    return output.owner


def _insist(fgraph, node, sizes):
    in_order = rotate if type(node.op) in _OPERANDS else tuple
    other_sizes, value_sizes = (in_order(getattr(sizes, name) or (None,) * 4) for name in _operands(node.op))
    expected = [-1 if size is None else size for size in value_sizes + other_sizes]
    if max(expected) >= 0:
        other, value = node.inputs[:2]
        checked = ToldSizes()(value, other, constant(np.array(expected, "int64")))
        fgraph.change_input(node, 1, checked, reason="layoutopt: sizes that ConvOp was told")


def _operands(op):
    """Names, in `Told`, of an op's first two operands."""
    if type(op) in _OPERANDS:
        return _OPERANDS[type(op)]
    roles = CONV_SITES[type(op)]._asdict()
    return [name for index in (0, 1) for name in Told._fields if roles[name] == index]
