"""An OpenBLAS that does not know the machine's CPU is told which of its kernels to take.

OpenBLAS chooses its kernels by the CPU's model when it is loaded, and takes those of 2004 for a model younger than itself:
Debian 12's (0.3.21) multiplies at 25 GFLOP/s on two cores of an Emerald Rapids, and at 97 with its kernels for AVX-512. The
dense layers of a network whose convolutions run in c01b would then be most of its step (`docs/performance.md`).
"""
import functools
import os
import subprocess
import sys

import theano

# OpenBLAS's names of kernels, the widest first, and what /proc/cpuinfo calls the instructions that they need.
_KERNELS = (
    ("SkylakeX", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "fma", "avx2"}),
    ("Haswell", {"avx2", "fma"}),
)
# Names of kernels for CPUs without AVX2: what OpenBLAS falls back to.
_FALL_BACKS = {"Katmai", "Coppermine", "Northwood", "Banias", "Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Sandybridge",
               "Atom", "Athlon", "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat", "Nano", "Generic"}

_ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.openblas_get_corename.restype = ctypes.c_char_p
print(library.openblas_get_corename().decode())
"""


def choose_kernels():
    """Set OPENBLAS_CORETYPE where the OpenBLAS that Theano links would fall back to kernels of another age than the CPU.

    OpenBLAS reads it when it is loaded, which is when the first op that multiplies matrices is: where that was before, this
    does nothing. The user's own setting wins.
    """
    if "OPENBLAS_CORETYPE" in os.environ:
        return
    kernels, library = widest(cpu_flags()), openblas(theano.config.blas.ldflags)
    if kernels and library and kernels_of(library) in _FALL_BACKS and kernels_of(library, kernels) == kernels:
        os.environ["OPENBLAS_CORETYPE"] = kernels


def widest(flags):
    """OpenBLAS's name of the widest kernels that a CPU with these flags (a set of str) can run; None for those it falls back to."""
    return next((name for name, needed in _KERNELS if needed <= flags), None)


@functools.lru_cache(maxsize=None)
def cpu_flags():
    """The instructions that this CPU has, a frozenset of str as /proc/cpuinfo names them; empty where that cannot be read."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((frozenset(line.split(":")[1].split()) for line in lines if line.startswith("flags")), frozenset())
    except OSError:
        return frozenset()


def openblas(ldflags):
    """The shared library that these flags of the linker name, as a path or a name that the loader finds; None without OpenBLAS."""
    words = ldflags.split()
    if "-lopenblas" not in words:
        return None
    paths = [os.path.join(word[2:], "libopenblas.so") for word in words if word.startswith("-L")]
    return next(filter(os.path.exists, paths), "libopenblas.so.0")


@functools.lru_cache(maxsize=None)
def kernels_of(library, told=None):
    """OpenBLAS's name of the kernels that it takes here, asked in a process of its own; None where it cannot be told.

    Parameters
    ----------
    library : str
        See `openblas`.
    told : str, optional
        The OPENBLAS_CORETYPE that it is told; by default the environment's, if there is one.

    Returns
    -------
    str or None
        What ``openblas_get_corename`` says. A name that it does not know is answered by another one.
    """
    if not sys.executable:  # Python is embedded in something else
        return None
    environment = dict(os.environ, OPENBLAS_CORETYPE=told) if told else os.environ
    try:
        return subprocess.check_output([sys.executable, "-S", "-E", "-c", _ASK, library], env=environment,
                                       stderr=subprocess.DEVNULL, universal_newlines=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return None
