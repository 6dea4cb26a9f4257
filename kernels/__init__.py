"""The c01b ops: Theano Op classes, each with a numpy reference and a C++ kernel.

Images are (channel, row, column, batch), filters (channel, row, column, filter), all contiguous float32; the batch is the
axis along which the kernels' vectors lie.
"""
from .avg_pool import AvgPool, AvgPoolGrad
from .batch_norm import BatchNormTrain, BatchNormTrainGrad
from .contiguous import gpu_contiguous
from .conv import FilterActs, ImageActs, WeightActs
from .cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum
from .pool import MaxPool, MaxPoolGrad, MaxPoolGradGrad, max_pool_c01b
from .prob_pool import ProbMaxPool, ProbMaxPoolGrad
from .relayout import StoredToC01B, ToBC01, ToC01B, to_bc01, to_c01b
from .stochastic_pool import StochasticMaxPool
from .take import TakeToC01B, take_to_c01b
from .weighted_pool import WeightedMaxPool, WeightedMaxPoolGrad

__all__ = ["AvgPool", "AvgPoolGrad", "BatchNormTrain", "BatchNormTrainGrad", "CrossMapNorm", "CrossMapNormUndo", "CrossMapSum",
           "FilterActs", "ImageActs", "MaxPool", "MaxPoolGrad", "MaxPoolGradGrad", "ProbMaxPool", "ProbMaxPoolGrad",
           "StochasticMaxPool", "StoredToC01B", "TakeToC01B", "ToBC01", "ToC01B", "WeightActs", "WeightedMaxPool",
           "WeightedMaxPoolGrad", "gpu_contiguous", "max_pool_c01b", "take_to_c01b", "to_bc01", "to_c01b"]
