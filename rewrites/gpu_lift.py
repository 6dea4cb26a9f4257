"""The c01b ops move to the GPU with everything around them: rules in Theano's own databases.

The plan is made on host ops, long before. Then `gpuarray_opt` (48.5) moves the graph to the GPU, by one of two optimizers,
GraphToGPU, which builds it anew, and a local one that follows transfers; `lift` is registered with both. Later, when ops
have become in-place, copies of values that are contiguous by construction go.

Import this module only where pygpu can be imported.
"""
from theano import gof
from theano.compile import optdb
from theano.compile.ops import Shape_i
from theano.gpuarray.basic_ops import (GpuAlloc, GpuAllocEmpty, GpuContiguous, GpuFromHost, GpuReshape,
                                       as_gpuarray_variable, gpu_contiguous)
from theano.gpuarray.blas import BaseGpuCorrMM
from theano.gpuarray.elemwise import GpuDimShuffle, GpuElemwise
from theano.gpuarray.opt import op_lifter, register_opt, register_opt2
from theano.gpuarray.pool import GpuAveragePoolGrad, GpuDownsampleFactorMaxGradGrad, GpuMaxPoolGrad, GpuPool
from theano.gpuarray.subtensor import GpuAdvancedSubtensor1

from layoutopt.kernels.contiguous import HostContiguous
from layoutopt.kernels.conv import WeightActs
from layoutopt.kernels.gpu.base import GpuC01bOp
from layoutopt.kernels.gpu.ops import GPU_OPS, GpuConv, GpuToC01B
from layoutopt.kernels.gpu.reshape import GpuReshapeC01B
from layoutopt.kernels.relayout import StoredToC01B, to_c01b
from layoutopt.kernels.take import TakeToC01B

from .tidy import drop_copies
from .told import ToldSizes

# Behind Theano's in-place optimizers (75), where an op's memory is decided, and before what only removes names.
POSITION = 76.0

# The host ops that have a counterpart, or are two ops on the GPU.
LIFTED = list(GPU_OPS) + [StoredToC01B, TakeToC01B]

_settings = []  # of one function, which gives {name: value} for the parameters of `GpuConv`


def lifted(op, inputs, outputs):
    """A c01b op of the host as variables on the GPU.

    Parameters
    ----------
    op : theano Op
        Of a class in `LIFTED`.
    inputs : list of variables
        On the host or on the GPU.
    outputs : list of variables
        Those of the node on the host.
    """
    if isinstance(op, StoredToC01B):
        return [GpuToC01B(to_c01b)(*inputs)]
    if isinstance(op, TakeToC01B):
        return [GpuToC01B(to_c01b)(GpuAdvancedSubtensor1()(*inputs))]
    gpu_op = GPU_OPS[type(op)]
    parameters = _settings[0]() if issubclass(gpu_op, GpuConv) else {}
    if isinstance(op, WeightActs) and op.partial_sum and not outputs[1].clients:
        # Nobody reads the partial sums: how many there are is the kernel's business. The second node is never used.
        alone = WeightActs(op.pad, None, op.stride, op.flip, op.ceil_mode, op.groups)
        return gpu_op(alone, **parameters)(*inputs) + gpu_op(op, **parameters)(*inputs)[1:]
    results = gpu_op(op, **parameters)(*inputs)
    return results if isinstance(results, list) else [results]


@register_opt("fast_compile")
@op_lifter(LIFTED)
@register_opt2(LIFTED, "fast_compile")
def local_gpua_layoutopt(op, context_name, inputs, outputs):
    """FilterActs(...) -> GpuFilterActs(...), and so on."""
    first = as_gpuarray_variable(inputs[0], context_name)
    return lifted(op, [first] + list(inputs[1:]), outputs)


@register_opt("fast_compile")
@op_lifter([HostContiguous])
@register_opt2([HostContiguous], "fast_compile")
def local_gpua_host_contiguous(op, context_name, inputs, outputs):
    """Theano's own rule is for its CpuContiguous alone."""
    return [gpu_contiguous(as_gpuarray_variable(inputs[0], context_name))]


@register_opt("fast_compile")
@op_lifter([Shape_i])
@register_opt2([Shape_i], "fast_compile")
def local_gpua_shape_i(op, context_name, inputs, outputs):
    """A size is read off the value on the GPU; Theano, which has no rule for it, would fetch the value."""
    return [op(as_gpuarray_variable(inputs[0], context_name))]


@register_opt("fast_compile")
@op_lifter([ToldSizes])
@register_opt2([ToldSizes], "fast_compile")
def local_gpua_told_sizes(op, context_name, inputs, outputs):
    """Sizes are looked at where the values are."""
    return [op(*[as_gpuarray_variable(x, context_name) for x in inputs[:2]], inputs[2])]


# ---- copies


def _elemwise_is(node, contiguous):
    """A new array is contiguous; in place of an operand it lies as that does."""
    return all(contiguous(node.inputs[i]) for i in node.op.inplace_pattern.values())


def _dimshuffle_is(node, contiguous):
    kept = [axis for axis in node.op.new_order if axis != "x"]
    return kept == sorted(kept) and contiguous(node.inputs[0])


def _always(node, contiguous):
    return True


def _as_first(node, contiguous):
    return contiguous(node.inputs[0])


GPU_RULES = dict.fromkeys((GpuC01bOp, GpuContiguous, GpuAlloc, GpuAllocEmpty, GpuFromHost, BaseGpuCorrMM, GpuPool,
                           GpuMaxPoolGrad, GpuAveragePoolGrad, GpuDownsampleFactorMaxGradGrad), _always)
GPU_RULES.update({GpuReshape: _as_first, GpuReshapeC01B: _as_first, GpuElemwise: _elemwise_is, GpuDimShuffle: _dimshuffle_is})


class DropGpuCopies(gof.Optimizer):
    """GpuContiguous(x) becomes x where x is contiguous by construction, in graphs that have c01b ops."""

    def apply(self, fgraph):
        if any(isinstance(node.op, GpuC01bOp) for node in fgraph.apply_nodes):
            drop_copies(fgraph, GpuContiguous, GPU_RULES)


def register(settings):
    """Put the late pass into Theano's database, and say where the ops' parameters come from.

    Parameters
    ----------
    settings : function () -> dict
        The parameters of `GpuConv`, asked for at each lifting.
    """
    _settings[:] = [settings]
    if "layoutopt_gpu_copies" not in optdb.__position__:
        optdb.register("layoutopt_gpu_copies", DropGpuCopies(), POSITION, "fast_run", "fast_compile", "gpuarray")


