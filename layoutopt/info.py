"""python -m layoutopt info: what a bug report needs."""
import os
import platform
import subprocess
import sys

import networkx
import numpy
import scipy
import theano

import layoutopt
from layoutopt.kernels import base
from layoutopt.rewrites.cost import Machine, cores, cpu

from . import blas, calibrate, device, kept


def _compiler():
    if not theano.config.cxx:
        return "none: Theano runs without C code, layoutopt stands aside"
    return subprocess.check_output([theano.config.cxx, "--version"], universal_newlines=True).splitlines()[0]


def _blas():
    ldflags = theano.config.blas.ldflags
    library = blas.openblas(ldflags)
    if not library:
        return ldflags or "numpy's own (blas.ldflags is empty)"
    own = blas.kernels_of(library) or "what it does not tell"
    blas.choose_kernels()
    told = os.environ.get("OPENBLAS_CORETYPE")
    return "%s, with kernels for %s%s" % (ldflags, own, "; OPENBLAS_CORETYPE=%s" % told if told else "")


def _simd():
    name, lanes = cpu()
    return "%s: vectors of %d floats; layoutopt.simd=%s" % (name, lanes, theano.config.layoutopt.simd)


def _openmp():
    return "%s, %d threads (OMP_NUM_THREADS=%s); Theano's own openmp flag is %s" % (
        "on" if base.openmp_default() else "off", cores(), os.environ.get("OMP_NUM_THREADS", ""), theano.config.openmp)


def _gpu():
    if theano.config.device == "cpu":
        return "none asked for (device=cpu)"
    return device.why_not_gpu() or "%s, %r" % (theano.config.device, device.find_target(theano.config.layoutopt))


def _calibration():
    path = calibrate.path_of(calibrate.key_of(Machine.default(theano.config.layoutopt.simd)))
    return path if os.path.exists(path) else "none: costs are those of a typical machine (python -m layoutopt calibrate)"


def _flags():
    flags = {name: getattr(theano.config.layoutopt, name) for name in sorted(layoutopt.flags.names())}
    return ", ".join("%s=%s" % item for item in flags.items())


LINES = {
    "layoutopt": lambda: "%s in %s" % (layoutopt.__version__, os.path.dirname(layoutopt.__file__)),
    "Python": lambda: "%s, %s" % (sys.version.split()[0], sys.executable),
    "system": platform.platform,
    "Theano": lambda: theano.__version__,
    "numpy, scipy, networkx": lambda: ", ".join(module.__version__ for module in (numpy, scipy, networkx)),
    "compiler": _compiler,
    "BLAS": _blas,
    "SIMD": _simd,
    "OpenMP": _openmp,
    "GPU": _gpu,
    "calibration": _calibration,
    "cache": lambda: "%s; Theano's: %s" % (kept.cache_folder(), theano.config.compiledir),
    "THEANO_FLAGS": lambda: os.environ.get("THEANO_FLAGS", ""),
    "flags": _flags,
}


def add_arguments(parser):
    """It has none."""


def run(args):
    """The command; returns the exit status."""
    for name, value in LINES.items():
        try:
            line = value()
        except Exception as problem:  # whatever is broken is what the bug report is about
            line = "cannot be told: %s: %s" % (type(problem).__name__, problem)
        print("%-23s %s" % (name, line))
    return 0
