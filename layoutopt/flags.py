"""The settings, as Theano flags: THEANO_FLAGS=layoutopt.batch=32,... or a [layoutopt] section of .theanorc."""
import theano
from theano.configparser import AddConfigVar, EnumStr, IntParam, StrParam

from layoutopt.kernels.base import SIMD_LANES, WINOGRAD_TILES
from layoutopt.rewrites.constraints import CONSTRAINTS

_FLAGS = (
    ("constraints",
     "What a convolution or pooling must fulfil: 'layoutopt', what the kernels can do, or 'cuda_convnet', the original set.",
     EnumStr("layoutopt", *sorted(set(CONSTRAINTS) - {"layoutopt"}))),
    ("batch", "Images in a minibatch, for predicting costs, where the graph does not say.", IntParam(128, lambda n: n > 0)),
    ("cost",
     "Where the seconds come from that plans rest on: 'model', predicted; 'measure', each convolution, pooling and conversion is "
     "timed when it is first met, and the times are kept in the user's cache directory.",
     EnumStr("model", "measure")),
    ("simd", "Vectors of the CPU kernels: what the compiler finds on this machine, or a narrower kind.",
     EnumStr("auto", *sorted(set(SIMD_LANES) - {"auto"}))),
    ("winograd",
     "Winograd's algorithm for 3 x 3 filters, where it pays: 'f2', tiles of 2 x 2, no less accurate than a direct "
     "kernel; 'f4', also tiles of 4 x 4, some 6 times less accurate; 'off', not at all.",
     EnumStr("f2", *sorted(set(WINOGRAD_TILES) - {"f2"}))),
    ("memory",
     "'keep': malloc keeps freed memory for the next call, from the first function that is rewritten on; 'system': it does "
     "as it would.",
     EnumStr("keep", "system")),
    ("precision",
     "Products of the GPU's convolutions: 'float32', or 'tf32', which rounds factors to 10 bits where the GPU is faster that "
     "way.",
     EnumStr("float32", "tf32")),
    ("partial_sum",
     "Output positions that a GPU adds up in one partial sum of a weight gradient: 'auto', as many as is fast; a number; "
     "'None', all.",
     StrParam("auto", lambda value: value in ("auto", "None") or (value.isdigit() and int(value) > 0))),
    ("workspace", "Megabytes of GPU memory that a convolution may use while it runs, besides its output.",
     IntParam(256, lambda n: n >= 0)),
    ("report",
     "File to which a report on every compiled function with a convolution or pooling is appended, as text; a .json or .html "
     "file is written anew, with all of the process's functions; '-': stderr.",
     StrParam("")),
    ("verify",
     "'first_call': the first call of each rewritten function is compared with the same function compiled without layoutopt, and "
     "a difference that rounding does not explain raises LayoutMismatch; 'no': none is.",
     EnumStr("no", "first_call")),
)


def names():
    """The names of all flags, without 'layoutopt.'."""
    return [name for name, _, _ in _FLAGS]


def register():
    """Make the flags known to Theano; a second call does nothing."""
    if hasattr(theano.config, "layoutopt"):
        return
    for name, doc, parameter in _FLAGS:
        AddConfigVar("layoutopt." + name, doc, parameter, in_c_key=False)
