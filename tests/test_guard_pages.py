"""Every op's C code on memory that ends, and begins, where nobody may read: guard_cases.py, in a process of its own."""
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))


def run(*program):
    """The program's exit status, the last line it printed, and what it said on its end."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run([sys.executable, *program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout.strip().split("\n")[-1], done.stderr


# Vectors of other widths: for the ops whose tests have compiled those already.
@pytest.mark.parametrize("builds", [["auto"], ["avx2", "plain"]], ids=" ".join)
def test_nothing_beyond_operands_and_results_is_touched(builds):
    status, last, trace = run(os.path.join(HERE, "guard_cases.py"), *builds)
    assert (status, last) == (0, "done"), "exit status %d in %s\n%s" % (status, last, trace[-3000:])


@pytest.mark.parametrize("at_end, place", [(True, 5), (False, -1)])
def test_a_read_beyond_ends_the_process(at_end, place):
    """Does the guard stand? One element beyond the last, and one before the first."""
    program = """
import ctypes, faulthandler, numpy as np, guarded
faulthandler.enable()
a = guarded.Guarded.holding(np.arange(5, dtype="float32"), %r).array
print(a.sum(), flush=True)
print(ctypes.cast(a.ctypes.data, ctypes.POINTER(ctypes.c_float))[%d])
""" % (at_end, place)
    status, last, trace = run("-c", program)
    assert (status, last) == (-11, "10.0") and "Segmentation fault" in trace


def test_a_write_to_an_operand_ends_the_process():
    program = """
import numpy as np, guarded
a = guarded.Guarded.holding(np.arange(5, dtype="float32"), True).array
print(a.sum(), flush=True)
a[0] = 1
"""
    assert run("-c", program)[:2] == (-11, "10.0")
