"""Memory that ops ask for when they are called again: none."""
import os
import platform
import subprocess
import sys

import pytest
import theano

HERE = os.path.dirname(os.path.abspath(__file__))
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="allocations.cc counts those of glibc's malloc")


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """The environment of a process whose allocations are counted."""
    library = tmp_path_factory.mktemp("allocations") / "allocations.so"
    subprocess.run([theano.config.cxx, "-O1", "-shared", "-fPIC", os.path.join(HERE, "allocations.cc"), "-o", str(library)],
                   check=True)
    return dict(os.environ, LD_PRELOAD=str(library), OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1",
                PYTHONPATH=os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))


def printed(environment, *program):
    done = subprocess.run([sys.executable, *program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().split("\n")


def test_an_op_that_is_called_again_allocates_nothing(counting):
    """Results go to the storage of the call before, workspaces and tables of plans stay with their threads."""
    *allocating, last = printed(counting, os.path.join(HERE, "steady_cases.py"))
    assert allocating == []
    cases, = [int(word) for word in last.split() if word.isdigit()]
    assert cases > 120


def test_the_counter_counts(counting):
    program = """
import ctypes, numpy as np
counters = [ctypes.c_long.in_dll(ctypes.CDLL(None), name) for name in ("allocations", "allocated_bytes")]
before = [counter.value for counter in counters]
x = np.empty(10 ** 6, "float32")
y = np.empty(10 ** 6, "float32")
print(*[counter.value - old for counter, old in zip(counters, before)])
"""
    (allocations, allocated), = [map(int, line.split()) for line in printed(counting, "-c", program)]
    assert 2 <= allocations < 10 and 8 * 10 ** 6 <= allocated < 8.1 * 10 ** 6  # and what Python itself may ask for
