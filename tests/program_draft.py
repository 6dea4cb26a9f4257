"""A random program while it is being drawn: what it has so far, and the shape of each value."""
import math
from typing import NamedTuple, Tuple

from hypothesis import strategies as st

LARGEST = 6000  # elements of a value


class Value(NamedTuple):
    """What a name stands for, with its shape in the first call."""

    name: str
    shape: Tuple[int, ...]
    dtype: str = "float32"

    @property
    def ndim(self):
        return len(self.shape)


class Draft:
    """A program that is being drawn."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = []
        self.values = []  # what steps may use
        self.weights = []  # shared variables
        self.inputs = []
        self.fractions = self.chance(4)
        self.others = None  # for the last call: the number of images, and how many rows and columns are more then

    # ---- what is drawn

    def number(self, least, most):
        return self.draw(st.integers(least, most))

    def one_of(self, *items):
        return self.draw(st.sampled_from(items))

    def chance(self, times):
        """True once in so many times."""
        return self.number(1, times) == times

    def axes(self, ndim, least=1):
        """Some axes, in order."""
        return tuple(sorted(self.draw(st.sets(st.integers(0, ndim - 1), min_size=min(least, ndim), max_size=ndim))))

    def pick(self, *ranks, where=lambda value: True, dtype="float32"):
        """A value of one of these ranks, rather a late one, or None."""
        fitting = [v for v in self.values if v.ndim in ranks and where(v) and dtype in (None, v.dtype)]
        return fitting[-1 - min(self.number(0, 5) // 2, len(fitting) - 1)] if fitting else None

    # ---- what is added

    def add(self, expression, shape, dtype="float32", prefix="h"):
        """A line that computes a value, unless that is empty or too large."""
        if math.prod(shape) > LARGEST or 0 in shape or len(shape) > 5:
            return None
        value = Value("%s%d" % (prefix, len(self.lines)), tuple(int(size) for size in shape), dtype)
        self.lines.append("%s = %s" % (value.name, expression))
        if prefix in "hx":
            self.values.append(value)
        return value

    def given(self, shape, changes=False, broadcast=()):
        """An input of the function; `changes`: it is of images that are others, and of another size, in the last call."""
        more = []
        if changes and self.others:
            batch, *larger = self.others
            then = [batch, shape[1]] + [n + d * (n > 1) for n, d in zip(shape[2:], larger)]
            more = ["then=%s" % (tuple(then[:len(shape)]),)]
        value = self.add("given(%s)" % ", ".join([str(shape)] + self._options(broadcast) + more), shape, prefix="x")
        self.inputs.append(value)
        return value

    def shared(self, shape, broadcast=()):
        number = len(self.lines)
        options = [str(shape)] + self._options(broadcast) + ["seed=%d" % number]
        value = self.add("shared(%s)" % ", ".join(options), shape, prefix="w")
        if value is not None:
            self.weights.append(value)
        return value

    def _options(self, broadcast):
        options = ["broadcast=%s" % (broadcast,)] if broadcast else []
        return options + (["fractions=True"] if self.fractions else [])

    def integers(self, values, dtype="int64"):
        """An input of integers, or a literal list of them, as an expression."""
        if self.chance(2):
            return str(values)
        shape = "()" if isinstance(values, int) else "(%d,)" % len(values)
        return self.add("given(%s, dtype='%s', values=%s)" % (shape, dtype, values), (1,), dtype, prefix="i").name
