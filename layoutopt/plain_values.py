"""What a program gets of weights that are stored in c01b: an array whose bytes lie as Theano would have left them.

Most of what is done with an array asks for its elements, and any strides will do. But hashlib.sha1(w.get_value()), file.write and
ctypes want its bytes, and w.get_value(borrow=True).ravel()[0] = 1 is to change the weights. So `get_value` gives contiguous
arrays: of borrowed ones the variable itself holds what it gives, and the next update stores it in c01b again.
"""
import functools

import numpy as np
from theano.tensor.sharedvar import TensorSharedVariable

from layoutopt.rewrites.storage import is_stored_in_c01b


def register():
    """Let shared variables give contiguous arrays; a second call does nothing."""
    if not hasattr(TensorSharedVariable.get_value, "gives_plain"):
        TensorSharedVariable.get_value = _giving_plain(TensorSharedVariable.get_value)


def _giving_plain(get_value):
    @functools.wraps(get_value)
    def giving_plain(variable, borrow=False, return_internal_type=False):
        if not return_internal_type and is_stored_in_c01b(variable):
            value = np.array(variable.container.storage[0], order="C")
            if borrow:
                variable.container.storage[0] = value
            return value
        return get_value(variable, borrow=borrow, return_internal_type=return_internal_type)

    giving_plain.gives_plain = True
    return giving_plain
