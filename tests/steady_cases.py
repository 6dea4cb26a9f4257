"""What every op allocates when it is called again, with its results' storage of the call before, as Theano's with allow_gc=False;
a program, run with allocations.cc in front of malloc. It prints each case that allocates, and how many there were.
"""
import ctypes
import itertools

import numpy as np

import guard_cases
import guarded
from layoutopt.kernels import base

_counters = ctypes.CDLL(None)
ALLOCATIONS, BYTES = (ctypes.c_long.in_dll(_counters, name) for name in ("allocations", "allocated_bytes"))


def again(op, operands):
    """(allocations, bytes, whether results are where they were) of an op's third call."""
    values = [x.take(x.base) if isinstance(x, guarded.View) else x for x in operands]
    inputs, outputs, thunk, _ = guarded.thunk_of(op, *values)
    for storage, value in zip(inputs, values):
        storage[0] = value
    thunk()
    thunk()
    results = [storage[0] for storage in outputs]
    before = ALLOCATIONS.value, BYTES.value
    thunk()
    after = ALLOCATIONS.value, BYTES.value
    same = all(storage[0] is result for storage, result in zip(outputs, results))
    return after[0] - before[0], after[1] - before[1], same


def main():
    cases = 0
    for kind in guard_cases.KINDS:
        # Not all of them, for the sake of time: by a step that falls in with no period of theirs.
        for name, op, operands in itertools.islice(kind(np.random.RandomState(20121203)), 0, None, 5):
            count, size, same = again(op, operands)
            cases += 1
            if count or not same:
                print("%s, %s: %d allocations, %d bytes%s" % (op, name, count, size, "" if same else ", results are new"))
    base.WINOGRAD_TILES["f2"] = 2
    print("cases: %d" % cases)


if __name__ == "__main__":
    main()
