"""Every loop nest of the convolutions on random shapes, exactly: nests/nests.cc, with AddressSanitizer and
UndefinedBehaviorSanitizer.

An op takes the nest that costs least, so its own tests hardly meet one at the sizes for which it is not meant. Here each
computes what it can. ``make sanitize`` builds them for narrower vectors, too.
"""
import os
import subprocess
import warnings

import pytest
import theano

from layoutopt.kernels.base import SIMD_LANES

HERE = os.path.dirname(os.path.abspath(__file__))
NESTS = os.path.join(HERE, "nests", "nests.cc")
KERNELS = os.path.join(os.path.dirname(HERE), "kernels", "cpu")
FLAGS = ("-std=c++17", "-O1", "-march=native", "-fopenmp", "-I", KERNELS)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
VECTORS = os.environ.get("NESTS_SIMD", "auto").split()


def compiled(simd, program):
    """The name of the program, with the sanitizers where g++ has their libraries."""
    compiler = theano.config.cxx
    lanes = ["-DLAYOUTOPT_LANES=%d" % SIMD_LANES[simd]] if SIMD_LANES[simd] else []
    links = subprocess.run([compiler, *SANITIZERS, "-xc++", "-", "-o", program], input="int main() {}", text=True,
                           capture_output=True)
    if links.returncode:
        warnings.warn("loop nests without sanitizers: " + links.stderr.strip().splitlines()[-1])
    subprocess.run([compiler, *FLAGS, *lanes, *(() if links.returncode else SANITIZERS), NESTS, "-o", program], check=True)
    return program


@pytest.mark.parametrize("simd", VECTORS)
def test_each_nest_at_any_shape_exactly(simd, tmp_path):
    program = compiled(simd, str(tmp_path / "nests"))
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    done = subprocess.run([program, "200", "1"], text=True, capture_output=True, env=environment)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(count) for name, count in (line.rsplit(": ", 1) for line in done.stdout.splitlines())}
    assert len(counts) == 13  # six nests, of which one has no forward pass, and two kinds of tiles for weights
    assert min(counts.values()) >= 25
