"""OpenBLAS's kernels: chosen for it where it does not know the CPU, and only there."""
import os
import subprocess
import sys

import pytest
import theano

from layoutopt import blas

AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "fma", "avx2"}


@pytest.fixture
def machine(monkeypatch):
    """A machine with these instructions whose OpenBLAS takes these kernels; what it would be told is asked for in its turn."""
    def make(flags, taken, knows=("SkylakeX", "Haswell")):
        monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
        monkeypatch.setattr(theano.config.blas, "ldflags", "-lopenblas")
        monkeypatch.setattr(blas, "cpu_flags", lambda: flags)
        monkeypatch.setattr(blas, "kernels_of", lambda library, told=None: told if told in knows else taken)
    yield make
    os.environ.pop("OPENBLAS_CORETYPE", None)


@pytest.mark.parametrize("flags, taken, told", [
    (AVX512, "Prescott", "SkylakeX"),
    ({"fma", "avx2"}, "Nehalem", "Haswell"),
    (AVX512 - {"avx512vl"}, "Prescott", "Haswell"),
    (AVX512, "Cooperlake", None),  # it knows the CPU
    (AVX512, "Zen", None),
    ({"avx"}, "Sandybridge", None),  # there is no better
    (AVX512, None, None),  # no OpenBLAS that can be loaded
])
def test_is_told_where_it_falls_back(machine, flags, taken, told):
    machine(flags, taken)
    blas.choose_kernels()
    assert os.environ.get("OPENBLAS_CORETYPE") == told


def test_is_not_told_what_it_lacks(machine):
    machine(AVX512, "Prescott", knows=())
    blas.choose_kernels()
    assert "OPENBLAS_CORETYPE" not in os.environ


def test_the_users_choice_wins(machine, monkeypatch):
    machine(AVX512, "Prescott")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Core2")
    blas.choose_kernels()
    assert os.environ["OPENBLAS_CORETYPE"] == "Core2"


def test_the_library_of_the_linkers_flags(tmp_path):
    assert blas.openblas("") is None
    assert blas.openblas("-lblas") is None
    assert blas.openblas("-lopenblas") == "libopenblas.so.0"
    (tmp_path / "libopenblas.so").write_bytes(b"")
    assert blas.openblas("-L%s -lopenblas" % tmp_path) == str(tmp_path / "libopenblas.so")
    assert blas.openblas("-L/nowhere -lopenblas") == "libopenblas.so.0"


def test_a_library_that_cannot_be_loaded_tells_nothing(tmp_path):
    (tmp_path / "libopenblas.so").write_bytes(b"no library")
    assert blas.kernels_of(str(tmp_path / "libopenblas.so")) is None


PROGRAM = """
import ctypes, os, numpy, theano, theano.tensor as tt
images = tt.tensor4(dtype="float32")
filters = theano.shared(numpy.ones((32, 16, 5, 5), "float32"))
weights = theano.shared(numpy.ones((32, 10), "float32"))
f = theano.function([images], tt.nnet.conv2d(images, filters, (64, 16, 12, 12), (32, 16, 5, 5)).max((2, 3)).dot(weights))
f(numpy.ones((64, 16, 12, 12), "float32"))
assert "FilterActs" in str(f.maker.fgraph.toposort())
print(os.environ.get("OPENBLAS_CORETYPE"))
from layoutopt import blas
name = blas.openblas(theano.config.blas.ldflags)
if name:
    library = ctypes.CDLL(name)
    library.openblas_get_corename.restype = ctypes.c_char_p
    print(library.openblas_get_corename().decode())
"""


def test_a_program_with_the_flag_has_the_kernels(tmp_path):
    """Without OpenBLAS nothing is told; with one, it has those kernels in the end that it was told, or took by itself."""
    library = blas.openblas(theano.config.blas.ldflags)
    flags = os.environ.get("THEANO_FLAGS", "") + ",floatX=float32,optimizer_including=layoutopt"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    told, *taken = subprocess.check_output([sys.executable, "-c", PROGRAM], universal_newlines=True, cwd=str(tmp_path),
                                           env=dict(environment, THEANO_FLAGS=flags)).split()
    if library is None:
        assert (told, taken) == ("None", [])
        return
    by_itself, better = blas.kernels_of(library), blas.widest(blas.cpu_flags())
    falls_back = by_itself in blas._FALL_BACKS and better is not None
    assert (told, taken) == ((better, [better]) if falls_back else ("None", [by_itself]))
