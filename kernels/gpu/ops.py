"""The GPU ops: for each, the host op that it is, and the C++ that computes it."""
from theano.scalar import int64

from .. import avg_pool, conv, cross_map_norm, pool, prob_pool, relayout, reshape, stochastic_pool, weighted_pool
from .base import GpuC01bOp
from .reshape import GpuReshapeC01B


class GpuConv(GpuC01bOp):
    """What the convolutions share.

    Parameters
    ----------
    host : FilterActs, ImageActs or WeightActs
    tf32 : bool
        Allow products of single TF32 numbers (10 bits) where the GPU has them.
    split : int
        Output positions per partial sum of a weight gradient; 0: as many as is fast; -1: all. Fewer where `workspace` is
        too small for so many sums.
    workspace : int
        Bytes of scratch memory that a call may take.
    """

    __props__ = GpuC01bOp.__props__ + ("tf32", "split", "workspace")
    arrays = 2
    headers = ("conv_entries.h",)
    sources = ("correlate.cluda", "weight_acts.cluda", "sum_partials.cluda", "cuda/*.cuh")

    def __init__(self, host, tf32=False, split=0, workspace=2 ** 28):
        super().__init__(host)
        self.tf32, self.split, self.workspace = bool(tf32), int(split), int(workspace)

    def __str__(self):  # Theano writes one into every class with __props__
        return "Gpu%s%s" % (self.host, "{tf32}" if self.tf32 else "")

    @classmethod
    def _fields(cls):
        return dict(super()._fields(), tf32=int64, split=int64, workspace=int64)

    def _own_params(self):
        return dict(tf32=int(self.tf32), split=self.split, workspace=self.workspace)

    def c_arguments(self, node, inputs, outputs, params):
        shape = inputs[2] if len(inputs) == 3 else "nullptr"
        return [*inputs[:2], shape, *("&" + output for output in outputs), params]

    def flops(self, inputs, outputs):
        """Floating-point operations, from the shapes of inputs and outputs (Theano's profiler)."""
        return self.host.flops(inputs, outputs)


class GpuFilterActs(GpuConv):
    host_class = conv.FilterActs
    entry = "filter_acts"


class GpuImageActs(GpuConv):
    host_class = conv.ImageActs
    entry = "image_acts"


class GpuWeightActs(GpuConv):
    host_class = conv.WeightActs
    entry = "weight_acts"

    def __call__(self, *inputs, **kwargs):
        kwargs["return_list"] = True  # as the host op
        return super().__call__(*inputs, **kwargs)

    def c_arguments(self, node, inputs, outputs, params):
        partials = [] if len(outputs) == 2 else ["nullptr"]
        arguments = super().c_arguments(node, inputs, outputs, params)
        return arguments[:-1] + partials + arguments[-1:]


class _GpuPool(GpuC01bOp):
    headers = ("pool_entries.h",)
    sources = ("pool.cluda", "cuda/sizes.cuh", "cuda/max_pool.cuh")
    parameters = ("c01b::pool_params(%s)", "%s->context")

    def c_arguments(self, node, inputs, outputs, params):
        return [*inputs, *("&" + output for output in outputs), *(parameter % params for parameter in self.parameters)]


class GpuMaxPool(_GpuPool):
    host_class = pool.MaxPool
    entry = "max_pool"


class GpuMaxPoolGrad(_GpuPool):
    host_class = pool.MaxPoolGrad
    entry = "max_pool_grad"
    arrays = 3


class GpuMaxPoolGradGrad(_GpuPool):
    host_class = pool.MaxPoolGradGrad
    entry = "max_pool_grad_grad"
    arrays = 3


class GpuAvgPool(_GpuPool):
    host_class = avg_pool.AvgPool
    entry = "avg_pool"
    parameters = _GpuPool.parameters + ("c01b::averaging(%s)",)


class GpuAvgPoolGrad(_GpuPool):
    host_class = avg_pool.AvgPoolGrad
    entry = "avg_pool_grad"
    parameters = _GpuPool.parameters + ("c01b::averaging(%s)",)


class _GpuProbPool(_GpuPool):
    headers = ("prob_pool_entries.h",)
    sources = _GpuPool.sources + ("prob_pool.cluda",)


class GpuProbMaxPool(_GpuProbPool):
    host_class = prob_pool.ProbMaxPool
    entry = "prob_max_pool"
    arrays = 2


class GpuProbMaxPoolGrad(_GpuProbPool):
    host_class = prob_pool.ProbMaxPoolGrad
    entry = "prob_max_pool_grad"
    arrays = 4


class GpuStochasticMaxPool(_GpuPool):
    host_class = stochastic_pool.StochasticMaxPool
    entry = "stochastic_max_pool"
    headers = ("stochastic_pool_entries.h",)
    sources = _GpuPool.sources + ("stochastic_pool.cluda",)


class _GpuWeightedPool(_GpuPool):
    headers = ("weighted_pool_entries.h",)
    sources = _GpuPool.sources + ("weighted_pool.cluda",)


class GpuWeightedMaxPool(_GpuWeightedPool):
    host_class = weighted_pool.WeightedMaxPool
    entry = "weighted_max_pool"


class GpuWeightedMaxPoolGrad(_GpuWeightedPool):
    host_class = weighted_pool.WeightedMaxPoolGrad
    entry = "weighted_max_pool_grad"
    arrays = 3


class _GpuAcrossChannels(GpuC01bOp):
    headers = ("cross_map_entries.h",)
    sources = ("cross_map.cluda",)

    def c_arguments(self, node, inputs, outputs, params):
        return [*inputs, "&" + outputs[0], params]


class GpuCrossMapSum(_GpuAcrossChannels):
    host_class = cross_map_norm.CrossMapSum
    entry = "window_sum"


class GpuCrossMapNorm(_GpuAcrossChannels):
    host_class = cross_map_norm.CrossMapNorm
    entry = "cross_map_norm"


class GpuCrossMapNormUndo(_GpuAcrossChannels):
    host_class = cross_map_norm.CrossMapNormUndo
    entry = "cross_map_norm_undo"
    arrays = 2


class _GpuRelayout(GpuC01bOp):
    headers = ("relayout_entries.h",)
    sources = ("relayout.cluda",)
    entry = "relayout"

    def c_arguments(self, node, inputs, outputs, params):
        split = self.host.split(node.inputs[0].ndim)
        return ['"%s"' % self.host_class.__name__, inputs[0], str(split), "&" + outputs[0], params + "->context"]


class GpuToC01B(_GpuRelayout):
    host_class = relayout.ToC01B


class GpuToBC01(_GpuRelayout):
    host_class = relayout.ToBC01


GPU_OPS = {op.host_class: op for op in (GpuFilterActs, GpuImageActs, GpuWeightActs, GpuMaxPool, GpuMaxPoolGrad,
                                        GpuMaxPoolGradGrad, GpuAvgPool, GpuAvgPoolGrad, GpuCrossMapSum, GpuCrossMapNorm,
                                        GpuCrossMapNormUndo, GpuProbMaxPool, GpuProbMaxPoolGrad, GpuStochasticMaxPool,
                                        GpuWeightedMaxPool, GpuWeightedMaxPoolGrad, GpuToC01B, GpuToBC01)}
GPU_OPS[reshape.ReshapeC01B] = GpuReshapeC01B
