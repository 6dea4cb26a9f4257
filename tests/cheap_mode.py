"""Theano modes that compile little C, for tests of many different graphs."""
import pytest
import theano
from scipy.signal import _signaltools, _sigtools
from theano.gof import Op
from theano.gof.vm import VM_Linker
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet import conv
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import BaseCorrMM
from theano.tensor.signal.pool import AveragePoolGrad, MaxPoolGrad, Pool

from layoutopt.kernels.activation import Sigmoid, Tanh
from layoutopt.kernels.base import C01bOp
from layoutopt.kernels.relayout import StoredToC01B, ToBC01, ToC01B
from layoutopt.kernels.take import TakeToC01B

PER_TYPE = (Sigmoid, StoredToC01B, TakeToC01B, Tanh, ToBC01, ToC01B)  # layoutopt's ops that take values of any rank


@pytest.fixture(autouse=True)
def few_compilations(monkeypatch):
    compile_little(monkeypatch.setattr)


def compile_little(setattr):
    """What numpy can do runs in numpy: Theano would compile a module, a second or two, for each kind of each op.

    Theano's convolutions and poolings run as C, as layoutopt's always do.
    """

    def as_c(self, node, storage_map, compute_map, no_recycling, impl=None):
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "c")

    def as_c_unless_numpy_has_it(self, node, storage_map, compute_map, no_recycling, impl=None):
        in_numpy = self.nfunc_spec is not None and self.nfunc_spec[1] == len(node.inputs)
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "py" if in_numpy else "c")

    for op in (BaseCorrMM, ConvOp, Pool, AveragePoolGrad, MaxPoolGrad):
        setattr(op, "make_thunk", as_c)
    setattr(Elemwise, "make_thunk", as_c_unless_numpy_has_it)


def mode(flagged):
    """Theano's optimizations but for fusion, whose results are kinds of their own, and in-place variants."""
    chosen = theano.Mode(VM_Linker(c_thunks=False, use_cloop=False), "fast_run").excluding("fusion", "inplace")
    return chosen.including("layoutopt") if flagged else chosen.excluding("layoutopt")


@pytest.fixture
def hardly_any_compilation(few_compilations, monkeypatch):
    """What Theano has Python for runs in Python, for graphs as small as they are many; its convolutions and poolings run as C
    still, and layoutopt's ops, but for those that are compiled for each rank and dtype, where it is another than images'."""

    def in_python(self, node, storage_map, compute_map, no_recycling, impl=None):
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "py")

    def as_c_for_images(self, node, storage_map, compute_map, no_recycling, impl=None):
        x = node.inputs[0]
        impl = "py" if isinstance(self, PER_TYPE) and (x.ndim, x.dtype) != (4, "float32") else "c"
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, impl)

    for op in (Elemwise, ConvOp):  # a ConvOp is compiled for each of its shapes
        monkeypatch.setattr(op, "make_thunk", in_python)
    monkeypatch.setattr(C01bOp, "make_thunk", as_c_for_images)
    # Where ConvOp looks for these is not where scipy has them today.
    monkeypatch.setattr(conv, "imported_scipy_signal", True)
    for name, module in (("_valfrommode", _signaltools), ("_bvalfromboundary", _signaltools), ("_convolve2d", _sigtools)):
        monkeypatch.setattr(conv, name, getattr(module, name), raising=False)
