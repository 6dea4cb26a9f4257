"""What the tests of poolings share: Theano's own ops to compare with, the two layouts, and how results are compared."""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof.vm import VM_Linker

FAST = theano.Mode(linker="cvm", optimizer=None)
# What numpy can do runs in numpy, so that graphs of elementwise ops, and of shapes, compile nothing but our ops.
LITTLE_C = theano.Mode(VM_Linker(c_thunks=False, use_cloop=False), optimizer=None)
LITTLE_C_OPTIMIZED = theano.Mode(VM_Linker(c_thunks=False, use_cloop=False), "fast_run").excluding("fusion", "inplace")


def zeros(*shape):
    return np.zeros(shape, "float32")


def reals(rng, shape):
    return rng.standard_normal(shape).astype("float32")


def assert_same_bits(result, expected):
    """-0 is not 0, but one NaN is as good as another: the processor takes an operand's or its own."""
    assert result.shape == expected.shape and result.dtype == expected.dtype == "float32"
    same = np.ascontiguousarray(result).view("uint32") == np.ascontiguousarray(expected).view("uint32")
    different = ~(same | np.isnan(result) & np.isnan(expected))
    assert not different.any(), (result[different][:5], expected[different][:5])


def refused(op, function, *arrays):
    """The message of the ValueError of `function`, which runs `op`, after checking that the numpy fallback raises one, too."""
    inputs = [T.TensorType(array.dtype, [False] * array.ndim)() for array in arrays]
    node = op.make_node(*inputs)
    with pytest.raises(ValueError):
        op.perform(node, arrays, [[None] for _ in node.outputs])
    with pytest.raises(ValueError) as error:
        function(*arrays)
    return str(error.value)


def bc01(array):
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def c01b(array):
    return np.moveaxis(array, 0, -1)


def with_sizes_given(*ops):
    """A function for each (op, number of its tensors), which takes window, stride and pad, too: compiled once for all sizes."""
    functions = []
    for op, tensors in ops:
        inputs = [T.ftensor4() for _ in range(tensors)] + [T.lvector() for _ in range(3)]
        functions.append(theano.function(inputs, op(*inputs), mode=FAST))
    return functions
