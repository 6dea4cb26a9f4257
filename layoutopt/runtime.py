"""What the process is told before the first c01b kernel runs: to keep its memory, and to share its cores.

A step of a convnet allocates and frees the same tens of megabytes over and over. glibc hands blocks above 32 MB back to the
system at once and gets them again page by page: of stock Theano's LeNet step a third is page faults (`docs/performance.md`).

GNU OpenMP's threads wait for their next region by spinning for milliseconds, on cores that OpenBLAS's threads want for the dense
layers: products take twice as long. They shall spin for a fraction of a millisecond and then sleep; where they wake up is
seen to in ``kernels/cpu/placement.h``.
"""
import ctypes
import os

import theano

from layoutopt.kernels.base import configure

from .blas import choose_kernels

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2 ** 31 - 1  # mallopt takes an int
_OLD_LIMIT = 32 * 2 ** 20  # the most that older versions of glibc accept as threshold

# Rounds of spinning, about 0.1 ms on an Intel core of today and 0.04 on an AMD one: from one kernel to the next, but not
# through a matrix product. 150 to 5,000 did as well on the one, 1,000 to 20,000 on the other (docs/performance.md).
_SPINS = "2000"

_kept = []


def prepare_process():
    """What libraries read when they are loaded, told before anything is compiled, where the flag asks for layoutopt: Theano
    loads OpenMP's and OpenBLAS's with the first op that uses them, be it to fold a constant of the graph that is rewritten."""
    if "layoutopt" in theano.config.optimizer_including.split(":"):
        share_cores()
        choose_kernels()


def prepare(settings):
    """Make the process ready for the kernels, as the flags ask for; what a second call repeats does nothing.

    Parameters
    ----------
    settings : theano.config.layoutopt
    """
    configure(simd=settings.simd, winograd=settings.winograd)
    if settings.memory == "keep":
        keep_memory()
    share_cores()


def keep_memory():
    """Make malloc keep what is freed, for the next step to use (the flag layoutopt.memory); a second call does nothing.

    The user's own MALLOC_* settings win. Without glibc nothing happens.

    Returns
    -------
    bool
        Whether malloc took the settings.
    """
    if not _kept:
        _kept.append(_tell_malloc())
    return _kept[0]


def _tell_malloc():
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    large = mallopt(_M_MMAP_THRESHOLD, 2 ** 30) or mallopt(_M_MMAP_THRESHOLD, _OLD_LIMIT)
    return bool(large and mallopt(_M_TRIM_THRESHOLD, _LARGEST) and mallopt(_M_TOP_PAD, 64 * 2 ** 20))


def share_cores():
    """Make OpenMP's threads sleep soon after a parallel region, so that BLAS has the cores; the user's own settings win.

    libgomp reads its environment when it is loaded, which is when the first op that uses it is: where something else has loaded
    it before, this does nothing.
    """
    if not any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
