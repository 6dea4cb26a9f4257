"""What the GPU ops share: each is a host op's counterpart on theano.gpuarray, and asks it for everything but the work.

A host op (``kernels/conv.py``, ``kernels/pool.py``, ...) knows which operands it takes, which shapes and broadcast patterns
its results have, its gradients and its parameters. `GpuC01bOp` holds one and adds what differs on a GPU: arrays on
a device, and C++ that launches a kernel. The kernels' texts, the ``.cluda`` and ``.cuh`` files of this folder, are embedded in
the op's module; see ``device.h`` for how they become kernels.

This package can be imported only where pygpu can.
"""
import functools
import glob
import hashlib
import os

import pygpu
from theano.gof import Apply, Op, ParamsType, Variable
from theano.gpuarray.basic_ops import as_gpuarray_variable, infer_context_name
from theano.gpuarray.type import GpuArrayType, gpu_context_type
from theano.scalar import float64, int64
from theano.tensor import TensorType, as_tensor_variable

from ..base import CPU_HEADERS, headers_digest

GPU_SOURCES = os.path.dirname(os.path.abspath(__file__))
_KINDS = ("*.h", "*.cluda", "cuda/*.h", "cuda/*.cuh")


def files(*patterns):
    """Names of the files of this folder that match any of the patterns, in a fixed order."""
    found = {path for pattern in patterns for path in glob.glob(os.path.join(GPU_SOURCES, pattern))}
    return sorted(os.path.relpath(path, GPU_SOURCES).replace(os.sep, "/") for path in found)


def _read(name):
    with open(os.path.join(GPU_SOURCES, name)) as file:
        return file.read()


@functools.lru_cache(maxsize=None)
def _sources_digest():
    """A number that changes with any header or kernel, so that Theano compiles the ops anew."""
    digest = hashlib.sha256()
    for name in files(*_KINDS):
        digest.update(("%s\0%s\0" % (name, _read(name))).encode())
    return int(digest.hexdigest()[:15], 16)


@functools.lru_cache(maxsize=None)
def embedded(names):
    """C++ that defines ``c01b::gpu::source``, which ``device.h`` declares: the texts of the files `names`."""
    # A compiler may limit the length of one literal: a piece for every line.
    pieces = ['{"%s", %s}' % (name, "\n".join('R"cluda(%s\n)cluda"' % line for line in _read(name).splitlines()))
              for name in names]
    return """
    namespace c01b { namespace gpu {
    static const char* source(const std::string& name) {
        static const std::map<std::string, const char*> texts = {%s};
        return texts.at(name);
    }
    } }
    """ % ",\n".join(pieces)


class GpuC01bOp(Op):
    """A host op on the GPU.

    Parameters
    ----------
    host : theano Op
        Of class `host_class`; says what is computed. It is the op's identity.

    Notes
    -----
    Inputs are those of `host`; the first `arrays` of them are GPU arrays, as all outputs are. Values on the host are
    transferred. TypeError and ValueError are those of the host op.
    """

    __props__ = ("host",)
    check_broadcast = False  # another pattern is no reason to compile again
    _f16_ok = True
    host_class = None
    arrays = 1
    headers = ()
    sources = ()

    def __init__(self, host):
        if type(host) is not self.host_class:
            raise TypeError("%s is %s on the GPU, got %s" % (type(self).__name__, self.host_class.__name__, host))
        self.host = host

    def __init_subclass__(cls):
        super().__init_subclass__()
        if cls.host_class:
            cls.params_type = ParamsType(context=gpu_context_type, **cls._fields())

    @classmethod
    def _fields(cls):
        """{name: type} of the numbers that the C++ code is told: float64, or int64 for integers of any kind."""
        host_params = getattr(cls.host_class, "params_type", None)
        if not isinstance(host_params, ParamsType):
            return {}
        return {name: float64 if kind == float64 else int64 for name, kind in zip(host_params.fields, host_params.types)}

    def __str__(self):
        return "Gpu%s" % self.host

    def get_params(self, node):
        values = {}
        if isinstance(getattr(self.host, "params_type", None), ParamsType):
            told = self.host.get_params(node)
            numbers = {float64: float, int64: int}
            values = {name: numbers[self._fields()[name]](getattr(told, name)) for name in self.host_class.params_type.fields}
        return self.params_type.get_params(context=node.outputs[0].type.context, **values, **self._own_params())

    def _own_params(self):
        return {}

    def make_node(self, *inputs):
        inputs = [x if isinstance(x, Variable) else as_tensor_variable(x) for x in inputs]
        context = infer_context_name(*inputs)
        gpu = [as_gpuarray_variable(x, context) for x in inputs[:self.arrays]]
        host = self.host.make_node(*[TensorType(x.dtype, x.broadcastable)() for x in gpu], *inputs[self.arrays:])
        outputs = [GpuArrayType(x.dtype, x.broadcastable, context_name=context)() for x in host.outputs]
        return Apply(self, gpu + host.inputs[self.arrays:], outputs)

    # ---- C++

    def c_headers(self):
        return ["<type_traits>", "<gpuarray_api.h>"] + ['"%s"' % name for name in self.headers]

    def c_header_dirs(self):
        return [GPU_SOURCES, CPU_HEADERS, pygpu.get_include()]

    def c_compile_args(self):
        return ["-std=gnu++17"]

    def c_support_code(self):
        return embedded(tuple(files(*self.sources)))

    def c_code_cache_version(self):
        return headers_digest(), _sources_digest()

    def c_code(self, node, name, inputs, outputs, sub):
        return "if (c01b::gpu::%s_op(%s)) %s" % (
            self.entry, ", ".join(self.c_arguments(node, inputs, outputs, sub["params"])), sub["fail"])

    def make_thunk(self, node, storage_map, compute_map, no_recycling, impl=None):
        return super().make_thunk(node, storage_map, compute_map, no_recycling, "c")  # there is no other

    # ---- What the host op knows

    def infer_shape(self, node, shapes):
        return self.host.infer_shape(node, shapes)

    def connection_pattern(self, node):
        return [[i < self.arrays] * len(node.outputs) for i in range(len(node.inputs))]

    def L_op(self, inputs, outputs, output_gradients):
        """The host op's gradients, of transferred values; where the graph is optimized, nothing is transferred in the end."""
        gradients = self.host.L_op([x.transfer("cpu") for x in inputs[:self.arrays]] + inputs[self.arrays:],
                                   [x.transfer("cpu") for x in outputs], output_gradients)
        return [as_gpuarray_variable(g, x.type.context_name) if isinstance(g.type, TensorType) else g
                for g, x in zip(gradients[:self.arrays], inputs)] + gradients[self.arrays:]
