"""Theano modes that compile little C, for tests of many different graphs."""
import pytest
import theano
from theano.gof import Op
from theano.gof.vm import VM_Linker
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.signal.pool import DownsampleFactorMaxGradGrad, Pool

from plain_theano import compile_little, find_scipys_functions
from layoutopt.kernels.activation import Sigmoid, Tanh
from layoutopt.kernels.batch_norm import BatchNormTrain, BatchNormTrainGrad
from layoutopt.kernels.base import C01bOp
from layoutopt.kernels.relayout import StoredToC01B, ToBC01, ToC01B
from layoutopt.kernels.take import TakeToC01B

# layoutopt's ops that take values of any rank
PER_TYPE = (BatchNormTrain, BatchNormTrainGrad, Sigmoid, StoredToC01B, TakeToC01B, Tanh, ToBC01, ToC01B)


@pytest.fixture(autouse=True)
def few_compilations(monkeypatch):
    """See `plain_theano`."""
    compile_little(monkeypatch.setattr)


def mode(flagged):
    """Theano's optimizations but for fusion, whose results are kinds of their own, and in-place variants."""
    chosen = theano.Mode(VM_Linker(c_thunks=False, use_cloop=False), "fast_run").excluding("fusion", "inplace")
    return chosen.including("layoutopt") if flagged else chosen.excluding("layoutopt")


@pytest.fixture
def hardly_any_compilation(monkeypatch):
    """What Theano has Python for runs in Python, for graphs as small as they are many; its convolutions and poolings run as C
    still, and layoutopt's ops, but for those that are compiled for each rank and dtype, where it is another than images'."""

    def in_python(self, node, storage_map, compute_map, no_recycling, impl=None):
        too_many = len(node.inputs) + len(node.outputs) > 32  # for numpy's ufuncs; fused, shapes of shapes have more
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "c" if too_many else "py")

    def as_c_for_images(self, node, storage_map, compute_map, no_recycling, impl=None):
        x = node.inputs[0]
        impl = "py" if isinstance(self, PER_TYPE) and (x.ndim, x.dtype) != (4, "float32") else "c"
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, impl)

    compile_little(monkeypatch.setattr)
    for op in (Elemwise, ConvOp):  # a ConvOp is compiled for each of its shapes
        monkeypatch.setattr(op, "make_thunk", in_python)
    monkeypatch.setattr(DownsampleFactorMaxGradGrad, "make_thunk", Pool.make_thunk)  # which is as C
    monkeypatch.setattr(C01bOp, "make_thunk", as_c_for_images)
    find_scipys_functions(monkeypatch.setattr)
