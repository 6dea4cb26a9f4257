"""What all c01b ops share: how their C++ is found, versioned and compiled, and which numbers they take.

An op in this package is three things under one name: a numpy reference (``reference.py``, the definition), a C++ kernel
(``cpu/``), and a Theano Op that checks types, gives shapes and gradients, and calls the kernel through the C linker.
Parameters such as stride and pad travel to the kernel at run time (``ParamsType``), so each op is compiled once per
machine and never per configuration.
"""
import contextlib
import functools
import hashlib
import os
import re

import numpy as np
import theano
from theano.compile import debugmode
from theano.configparser import THEANO_FLAGS_DICT, theano_cfg
from theano.gof import OpenMPOp
from theano.tensor import as_tensor_variable

CPU_HEADERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cpu")

# Vector lanes by the name of the instruction set, for the flag layoutopt.simd; 'auto' leaves it to the compiler.
SIMD_LANES = {"auto": None, "avx512": 16, "avx2": 8, "plain": 4}

# Winograd's algorithm, by the names of the flag layoutopt.winograd, as the kernels' parameter (kernels/cpu/conv_shape.h).
WINOGRAD_TILES = {"off": 0, "f2": 2, "f4": 4}

_CHOICES = {"simd": SIMD_LANES, "winograd": WINOGRAD_TILES}
_settings = {"simd": "auto", "winograd": "f2"}


def configure(**settings):
    """Choose how the kernels of functions compiled from now on compute; what is not named stays as it is.

    This is the process's own choice, like its number of threads, and no part of an op: a function that is unpickled elsewhere
    computes as that process was told.

    Parameters
    ----------
    simd : {'auto', 'avx512', 'avx2', 'plain'}
        The vectors (the flag ``layoutopt.simd``). 'auto' takes what the compiler finds on this machine. Each has its own
        compilation.
    winograd : {'off', 'f2', 'f4'}
        Winograd's algorithm for 3 x 3, 5 x 5 and 7 x 7 filters, and those that a stride cuts to such (the flag
        ``layoutopt.winograd``): not at all; where it is no less accurate than a direct kernel; also F(4x4, 3x3), some 6
        times less accurate, and forward F(4x4, 5x5), which breaks ties. A run-time parameter.

    Raises
    ------
    ValueError
        For any other name.
    """
    for name, value in settings.items():
        if value not in _CHOICES[name]:
            raise ValueError("layoutopt.%s is %r; it can be %s" % (name, value, ", ".join(sorted(_CHOICES[name]))))
    _settings.update(settings)


@contextlib.contextmanager
def configured(**settings):
    """A context within which functions are compiled with other settings than `configure` made; its arguments."""
    before = dict(_settings)
    configure(**settings)
    try:
        yield
    finally:
        _settings.update(before)


def winograd_tile():
    """Winograd's algorithm as the kernels are told: 0 (not at all), 2 (where no digits are lost) or 4."""
    return WINOGRAD_TILES[_settings["winograd"]]


def openmp_default():
    """Whether kernels use OpenMP: Theano's own switch where the user set it, else yes.

    Theano's ``openmp`` flag is off by default, for the sake of small elementwise ops; its convolutions are parallel all the
    same, through BLAS. Ours would fall behind them on a machine of many cores, so the default is on, and
    ``openmp=False`` or ``OMP_NUM_THREADS=1`` is obeyed.
    """
    chosen = "openmp" in THEANO_FLAGS_DICT or theano_cfg.has_option("global", "openmp")
    return bool(theano.config.openmp) if chosen else True


@functools.lru_cache(maxsize=None)
def headers_digest(names=None):
    """A number that changes whenever one of the C++ headers `names` (default: all) or what they include does: Theano's module
    cache looks at sources, not at their includes."""
    digest, found, waiting = hashlib.sha256(), set(), sorted(os.listdir(CPU_HEADERS) if names is None else names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            with open(os.path.join(CPU_HEADERS, name), encoding="utf-8") as header:
                text = header.read()
            digest.update((name + "\0" + text).encode())
            waiting += re.findall(r'^#include "(.+)"', text, re.MULTILINE)
    return int(digest.hexdigest()[:15], 16)


class C01bOp(OpenMPOp):
    """Base of the ops: subclasses name their headers and give ``c_code``.

    Parameters
    ----------
    openmp : bool, optional
        Compile the kernel with OpenMP; by default as `openmp_default` says.
    """

    # Neither broadcast patterns nor parameters may lead to another compilation.
    check_broadcast = False
    headers = ()

    def __init__(self, openmp=None):
        super().__init__(openmp=openmp_default() if openmp is None else openmp)

    def c_headers(self):
        return ['"%s"' % name for name in self.headers] + super().c_headers()

    def c_header_dirs(self):
        return [CPU_HEADERS]

    def c_compile_args(self):
        lanes = SIMD_LANES[_settings["simd"]]
        # g++ before 11 defaults to C++14; gnu++ and not c++, which would keep products and sums from being contracted. Theano
        # asks for debugging information, on which g++ spends a quarter of its time.
        return super().c_compile_args() + ["-std=gnu++17", "-g0"] + (["-DLAYOUTOPT_LANES=%d" % lanes] if lanes else [])

    def c_no_compile_args(self):
        # The pad skips terms and ties are compared exactly: the kernels rely on IEEE arithmetic.
        return ["-ffast-math"]

    def c_code_cache_version(self):
        return (headers_digest(self.headers),)

    def make_thunk(self, node, storage_map, compute_map, no_recycling, impl=None):
        # FAST_COMPILE asks for Python thunks; Theano's own convolutions run as C there all the same, and so do ours:
        # `perform` is the numpy reference, hundreds of times slower.
        if theano.config.cxx:
            impl = "c"
        return super().make_thunk(node, storage_map, compute_map, no_recycling, impl)


# DebugMode compares `perform` with the C code of ops whose make_thunk it knows, as which ours is not meant to differ.
debugmode.default_make_thunk.append(C01bOp.make_thunk)


def as_c01b(op, name, value, ndim=4):
    """`value` as a float32 tensor variable of `ndim` axes.

    Raises
    ------
    TypeError
        For another dtype or number of axes; `op` and `name` are in the message.
    """
    variable = as_tensor_variable(value)
    if variable.ndim != ndim or variable.dtype != "float32":
        raise TypeError("%s: %s must be a float32 tensor of %d axes in c01b order, got %s"
                        % (type(op).__name__, name, ndim, variable.type))
    return variable


def as_output_shape(op, value):
    """`value` as an integer vector variable (rows, columns).

    Raises
    ------
    TypeError
        If it is not an integer vector.
    """
    variable = as_tensor_variable(value)
    if variable.ndim != 1 or variable.dtype not in theano.tensor.discrete_dtypes:
        raise TypeError("%s: output_shape must be an integer vector (rows, columns), got %s"
                        % (type(op).__name__, variable.type))
    return variable


def as_pair(name, value, least):
    """`value`, an integer or a pair of them, as a pair of Python ints of at least `least`.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or too small.
    """
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in pair):
        raise TypeError("%s must be an integer or a pair of integers, got %r" % (name, value))
    if min(pair) < least:
        raise ValueError("%s must be at least %d, got %r" % (name, least, value))
    return tuple(int(v) for v in pair)
