"""Settings and data that all tests share."""
import numpy as np
import pytest
import theano
from hypothesis import settings

theano.config.floatX = "float32"  # as the examples are run; graphs of other dtypes name theirs

# The same examples in every run, and no deadline: the first example of an op may compile it.
settings.register_profile("layoutopt", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("layoutopt")


@pytest.fixture
def rng():
    """A random generator that starts anew in each test."""
    return np.random.RandomState(20121203)
