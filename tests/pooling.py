"""What the tests of max-pooling and of average pooling share: Theano's own ops to compare with, and the two layouts."""
import numpy as np
import theano
import theano.tensor as T

FAST = theano.Mode(linker="cvm", optimizer=None)


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
