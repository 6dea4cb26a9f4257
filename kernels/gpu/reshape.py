"""ReshapeC01B on the GPU."""
import pygpu
from theano.gof import Apply, Op
from theano.gpuarray.basic_ops import as_gpuarray_variable, infer_context_name
from theano.gpuarray.type import GpuArrayType
from theano.tensor import TensorType


class GpuReshapeC01B(Op):
    """`ReshapeC01B` of a value on the GPU; the shape stays on the host. A view where the batch keeps its size.

    Parameters
    ----------
    host : ReshapeC01B
    """

    __props__ = ("host",)
    view_map = {0: [0]}
    _f16_ok = True

    def __init__(self, host):
        self.host = host

    def __str__(self):
        return type(self).__name__

    def make_node(self, x, shape):
        context = infer_context_name(x)
        x = as_gpuarray_variable(x, context)
        host = self.host.make_node(TensorType(x.dtype, x.broadcastable)(), shape)
        out, = host.outputs
        return Apply(self, [x, host.inputs[1]], [GpuArrayType(out.dtype, out.broadcastable, context_name=context)()])

    def perform(self, node, inputs, storage):
        x, shape = inputs
        sizes = self.host.sizes(x.shape, shape)
        if sizes[0] == x.shape[-1]:
            storage[0][0] = x.reshape(sizes[1:] + sizes[:1])
            return
        last, first = x.ndim - 1, list(range(1, len(sizes)))
        in_bc01 = x.transpose([last] + list(range(last))).reshape(sizes)
        storage[0][0] = pygpu.ascontiguousarray(in_bc01.transpose(first + [0]))

    def connection_pattern(self, node):
        return self.host.connection_pattern(node)
