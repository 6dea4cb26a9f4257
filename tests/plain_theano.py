"""Theano as it is, without layoutopt, made to compile little and to find what today's scipy has elsewhere."""
import importlib

from theano.gof import Op
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet import abstract_conv, conv
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import BaseCorrMM
from theano.tensor.signal.pool import AveragePoolGrad, DownsampleFactorMaxGradGrad, MaxPoolGrad, Pool, PoolGrad

SCIPYS = (("_valfrommode", "signaltools"), ("_bvalfromboundary", "signaltools"), ("convolve", "signaltools"), ("_convolve2d", "sigtools"))


def compile_little(setattr):
    """What numpy can do runs in numpy: Theano would compile a module, a second or two, for each kind of each op.

    Theano's convolutions and poolings run as C, as layoutopt's always do.

    Parameters
    ----------
    setattr : callable
        The builtin, or a monkeypatch's.
    """

    def as_c(self, node, storage_map, compute_map, no_recycling, impl=None):
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "c")

    def as_c_unless_numpy_has_it(self, node, storage_map, compute_map, no_recycling, impl=None):
        in_numpy = self.nfunc_spec is not None and self.nfunc_spec[1] == len(node.inputs)
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, "py" if in_numpy else "c")

    for op in (BaseCorrMM, ConvOp, Pool, AveragePoolGrad, MaxPoolGrad):
        setattr(op, "make_thunk", as_c)
    setattr(Elemwise, "make_thunk", as_c_unless_numpy_has_it)


def compile_nothing(setattr):
    """All that has Python runs in Python. What does not, as CorrMM, runs as C still, and so do layoutopt's ops, and poolings, whose
    Python indexes arrays by lists of slices, which numpy 1.23 takes for something else."""
    make_thunk = Op.make_thunk

    def in_python(self, node, storage_map, compute_map, no_recycling, impl=None):
        in_c = (type(self).perform is Op.perform or isinstance(self, (Pool, PoolGrad, DownsampleFactorMaxGradGrad)) or
                type(self).__module__.startswith("layoutopt."))
        return make_thunk(self, node, storage_map, compute_map, no_recycling, impl if in_c else "py")

    setattr(Op, "make_thunk", in_python)


def find_scipys_functions(setattr):
    """Give Theano's convolutions in Python what they look for in scipy.signal.signaltools, since scipy 1.8 _signaltools."""
    for module in (abstract_conv, conv):
        if not module.imported_scipy_signal:
            for name, place in SCIPYS:
                function = getattr(importlib.import_module("scipy.signal._" + place), name)
                vars(module).setdefault(name, None)  # a monkeypatch sets only what there is
                setattr(module, name, function)
            setattr(module, "imported_scipy_signal", True)
