"""Softmax and its kin, which work along the rows of a matrix: they read a transposed matrix as well as a straight one.

Theano's code for them follows strides, in both directions. So they take c01b matrices, which are transposed ones, as views,
and what they give is in either layout as a view.
"""
from theano.tensor.nnet.nnet import (CrossentropyCategorical1Hot, CrossentropyCategorical1HotGrad,
                                     CrossentropySoftmax1HotWithBiasDx, CrossentropySoftmaxArgmax1HotWithBias, LogSoftmax,
                                     Softmax, SoftmaxGrad, SoftmaxWithBias)

from ..layout import BC01, C01B, EITHER
from ..versions import Choice, Version, rotated_rank
from .matrix_product import transpose
from .registry import carries


@carries(Softmax, SoftmaxWithBias, LogSoftmax, SoftmaxGrad, CrossentropySoftmaxArgmax1HotWithBias,
         CrossentropySoftmax1HotWithBiasDx, CrossentropyCategorical1Hot, CrossentropyCategorical1HotGrad)
def along_rows(node, shapes):
    def bc01(node, inputs, layouts):
        straight = [transpose(x) if layout == C01B else x for x, layout in zip(inputs, layouts)]
        return node.op(*straight, return_list=True)

    def c01b(node, inputs, layouts):
        return [out.dimshuffle(1, 0) if out.ndim == 2 else out for out in bc01(node, inputs, layouts)]

    needs = tuple(EITHER if x.ndim == 2 else BC01 for x in node.inputs)
    gives = tuple(rotated_rank(out) for out in node.outputs)
    return Choice(Version(needs, (BC01,) * len(gives), build=bc01),
                  Version(needs, gives, build=c01b) if C01B in gives else None)
