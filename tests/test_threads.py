"""Threads: where they may run, what a forked child does without them, and two Theano functions at once.

Each in a process of its own: OpenMP reads its environment once, and a test of forking must not fork the test suite.
"""
import os
import subprocess
import sys

import pytest
import theano

from layoutopt.kernels import base

CONVOLVE = """
import numpy as np, theano, os, sys
from theano import tensor as T
from layoutopt.kernels.conv import FilterActs
x, w = T.tensor4(dtype="float32"), T.tensor4(dtype="float32")
f = theano.function([x, w], FilterActs(pad=1)(x, w))
rng = np.random.RandomState(0)
images = rng.randint(-4, 5, (16, 20, 20, 64)).astype("float32")
filters = rng.randint(-4, 5, (16, 3, 3, 32)).astype("float32")
expected = f(images, filters)
"""

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: threads cannot be placed")


def run(program, **environment):
    """What a program prints, run under two OpenMP threads."""
    variables = dict(os.environ, OMP_NUM_THREADS="2", **environment)
    return subprocess.run([sys.executable, "-c", CONVOLVE + program], env=variables, check=True, timeout=300,
                          stdout=subprocess.PIPE, text=True).stdout


@two_cores
def test_a_worker_keeps_off_its_masters_core_and_nobody_else_is_moved():
    """One thread of the process has lost one core; the main thread has what it had."""
    printed = run("""
masks = {int(t): os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")}
everything = masks.pop(os.getpid())
print(len(everything), sorted(len(everything - mask) for mask in masks.values())[-1],
      sum(mask != everything for mask in masks.values()))
""")
    assert printed.split() == [str(len(os.sched_getaffinity(0))), "1", "1"]


@two_cores
def test_threads_that_the_user_bound_stay_where_they_are():
    printed = run("""
print(sorted(len(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task"))[:2])
""", OMP_PROC_BIND="true", OMP_PLACES="cores")
    assert printed.strip() == "[1, 1]"  # the master and its worker, a core each


def test_a_forked_child_computes_alone():
    """OpenMP's threads do not come along when a process forks: a child that waited for them would never end."""
    printed = run("""
child = os.fork()
if child == 0:
    same = np.array_equal(f(images, filters), expected)
    os._exit(0 if same else 1)
print(os.waitpid(child, 0)[1], np.array_equal(f(images, filters), expected))
""")
    assert printed.split() == ["0", "True"]


def test_two_functions_on_two_threads():
    """Kernels run without the interpreter lock, each with threads and scratch memory of its own."""
    printed = run("""
import threading
g = theano.function([x, w], FilterActs(pad=1)(x, w))
right = {f: [], g: []}
def work(function):
    for _ in range(50):
        right[function].append(np.array_equal(function(images, filters), expected))
threads = [threading.Thread(target=work, args=(function,)) for function in (f, g)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(right[f]), sum(right[g]))
""")
    assert printed.split() == ["50", "50"]


def test_one_function_on_two_threads():
    """Its storage is for one call: another one waits, as for Theano's own C code, which keeps the interpreter's lock."""
    printed = run("""
import threading
two = FilterActs(pad=1)(FilterActs(pad=1)(x, w), w.dimshuffle(3, 1, 2, 0))  # with a value in between
f = theano.function([x, w], two)
mine = {i: (images + i, f(images + i, filters)) for i in range(2)}
expected, right = mine[0][1], []
def work(i):
    for _ in range(50):
        right.append(np.array_equal(f(mine[i][0], filters), mine[i][1]))
threads = [threading.Thread(target=work, args=(i,)) for i in mine]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = os.fork()  # which must not wait for a turn that a thread of its parent had
if child == 0:
    os._exit(0 if np.array_equal(f(images, filters), expected) else 1)
print(sum(right), os.waitpid(child, 0)[1])
""")
    assert printed.split() == ["100", "0"]


def test_a_pool_of_forked_workers():
    """Workers that load data, compile and compute while their parent does, whose OpenMP threads they do not have."""
    printed = run("""
import multiprocessing
g = []
def load(i):
    return np.dot(images[0, 0] + i, images[0, 0].T).astype("float32")
def compute(i):
    g[:] = g or [theano.function([x, w], FilterActs(pad=1)(x, w))]
    return np.array_equal(g[0](images + i, filters), f(images + i, filters)), np.array_equal(f(images, filters), expected)
with multiprocessing.get_context("fork").Pool(2) as pool:
    loaded, computed = pool.map_async(load, range(20)), pool.map_async(compute, range(6))
    mine = [np.array_equal(f(images, filters), expected) for _ in range(20)]
    print(all(mine), np.array_equal(loaded.get(200), [load(i) for i in range(20)]), computed.get(200) == [(True, True)] * 6)
""")
    assert printed.split() == ["True"] * 3


@pytest.mark.parametrize("mine", [None, "77"])
def test_threads_sleep_soon_unless_the_user_said_otherwise(mine, monkeypatch):
    from layoutopt.runtime import _SPINS, share_cores

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", mine or "")
    if mine is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == (mine or _SPINS)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("flags, told", [("", False), (",optimizer_including=layoutopt", True)])
def test_openmp_is_told_before_it_is_loaded(flags, told):
    """Constants of a graph are folded by ops that use it, before any of that graph is rewritten."""
    program = ("import os, theano\n"
               "print('GOMP_SPINCOUNT' in os.environ, 'libgomp' in open('/proc/self/maps').read())")
    variables = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    variables["THEANO_FLAGS"] = variables.get("THEANO_FLAGS", "") + flags
    answer = subprocess.run([sys.executable, "-c", program], env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert answer.split() == [str(told), "False"]


# Item 0 ends when all others have, of which the first half is its own thread's.
ITEMS = """
#include <chrono>
#include <thread>
#include "parallel.h"
int main() {
    const int count = 1000;
    int times[count] = {}, threads = 0, done = 0;
    c01b::parallel_for(count, 2, [&](int64_t i, int) {
        __atomic_add_fetch(&times[i], 1, __ATOMIC_SEQ_CST);
        if (!i) threads = omp_get_num_threads();
        for (int ms = 0; i == 0 && threads == 2 && __atomic_load_n(&done, __ATOMIC_SEQ_CST) < count - 1 && ms < 60000; ++ms)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        if (i) __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
        else if (threads == 2 && __atomic_load_n(&done, __ATOMIC_SEQ_CST) < count - 1) std::exit(2);
    });
    for (int n : times)
        if (n != 1) return 1;
    return threads == 2 ? 0 : 3;
}
"""


def test_a_thread_that_is_done_takes_what_another_has_left(tmp_path):
    (tmp_path / "program.cpp").write_text(ITEMS)
    subprocess.run([theano.config.cxx, "-std=gnu++17", "-fopenmp", "-I", base.CPU_HEADERS, "program.cpp", "-o", "program"],
                   check=True, cwd=str(tmp_path))
    assert subprocess.run([str(tmp_path / "program")]).returncode == 0
