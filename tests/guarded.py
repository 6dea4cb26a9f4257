"""Memory between pages that nobody may touch, and single ops run on it.

An operand lies so that its last byte is the last one before such a page, and in a second run so that its first byte is the
first one after one: whoever reads or writes a byte beyond it ends the process. Operands cannot be written to either. Results
go to memory of the same kind, in place of what the op would have allocated.
"""
import ctypes
import mmap

import numpy as np
import theano.tensor as T

NOTHING, READING, READING_AND_WRITING = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _allow(address, size, access):
    if _libc.mprotect(address, size, access):
        raise OSError(ctypes.get_errno(), "mprotect")


class Guarded:
    """An array of zeros at the end, or the beginning, of its pages.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype
    at_end : bool

    Attributes
    ----------
    array : numpy array
        C-contiguous; it keeps its memory alive.
    """

    def __init__(self, shape, dtype, at_end):
        count, dtype = int(np.prod(shape, dtype=int)), np.dtype(dtype)
        self._size = max(1, -(-count * dtype.itemsize // mmap.PAGESIZE)) * mmap.PAGESIZE
        memory = mmap.mmap(-1, self._size + 2 * mmap.PAGESIZE)
        begin = mmap.PAGESIZE + (self._size - count * dtype.itemsize if at_end else 0)
        self.array = np.frombuffer(memory, dtype, count, begin).reshape(shape)
        self._first_page = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + mmap.PAGESIZE
        _allow(self._first_page - mmap.PAGESIZE, mmap.PAGESIZE, NOTHING)
        _allow(self._first_page + self._size, mmap.PAGESIZE, NOTHING)

    @classmethod
    def holding(cls, values, at_end, access=READING):
        """A copy of an array, to read only unless said otherwise."""
        guarded = cls(values.shape, values.dtype, at_end)
        guarded.array[...] = values
        _allow(guarded._first_page, guarded._size, access)
        return guarded


class View:
    """An operand that is part of an array: `take` of `base`, such as a slice with gaps between its rows."""

    def __init__(self, base, take):
        self.base, self.take = base, take


def thunk_of(op, *values):
    """The op's C code for operands like `values`: (inputs' storage, outputs' storage, what runs it, the node)."""
    variables = [T.TensorType(str(value.dtype), (False,) * value.ndim)() for value in values]
    node = op.make_node(*variables)
    storage = {variable: [None] for variable in node.inputs + node.outputs}
    thunk = op.make_thunk(node, storage, {variable: [True] for variable in storage}, [])
    return [storage[x] for x in node.inputs], [storage[x] for x in node.outputs], thunk, node


def reference(op, node, values):
    """The op's results by its numpy definition."""
    results = [[None] for _ in node.outputs]
    op.perform(node, list(values), results)
    return [result for result, in results]


def run(op, *operands):
    """An op's results by its definition, by its C code at the end of memory, and by its C code at the beginning of memory.

    Parameters
    ----------
    op : theano Op
        Neither in place nor a view.
    operands : arrays or `View`s

    Returns
    -------
    three lists of arrays
    """
    views = [x if isinstance(x, View) else View(x, lambda base: base) for x in operands]
    inputs, outputs, thunk, node = thunk_of(op, *[x.take(x.base) for x in views])
    expected = reference(op, node, [x.take(x.base) for x in views])
    results = []
    for at_end in (True, False):
        for storage, x in zip(inputs, views):
            storage[0] = x.take(Guarded.holding(x.base, at_end).array)
        targets = [Guarded(result.shape, result.dtype, at_end).array for result in expected]
        for storage, target in zip(outputs, targets):
            target.reshape(-1).view("uint8").fill(255)  # NaN, or a number that no result has, where nothing is written
            storage[0] = target
        thunk()
        assert all(storage[0] is target for storage, target in zip(outputs, targets)), "results went elsewhere"
        results.append(targets)
    return [expected] + results
