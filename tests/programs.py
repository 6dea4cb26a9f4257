"""Programs as data: lines of Theano code that can be printed, kept, shortened and run.

A program is a list of assignments, ``h2 = T.nnet.conv2d(x0, w1, subsample=(2, 1))``, and of calls that say what goes in and
out. Beside Theano's own names these lines may use

    given(shape, ...)     an input of the function
    shared(shape, ...)    a shared variable
    output(variable, ...), update(shared, new)
    mode                  for theano.scan, which compiles a step by itself

and `Program` says besides by which costs a plan is made: at sizes that a test can afford c01b would hardly ever pay.
"""
import contextlib
import hashlib
import re
from typing import List, NamedTuple, Tuple

import numpy as np
import theano
import theano.tensor as T
from theano.ifelse import ifelse
from theano.tensor.nnet import bn, conv
from theano.tensor.nnet.abstract_conv import conv2d_grad_wrt_inputs, conv2d_grad_wrt_weights
from theano.tensor.nnet.corr import CorrMM
from theano.tensor.nnet.neighbours import images2neibs
from theano.tensor.signal.pool import pool_2d

from layoutopt.rewrites.cost import Machine

NAMES = dict(theano=theano, T=T, np=np, ifelse=ifelse, pool_2d=pool_2d, bn=bn, images2neibs=images2neibs, CorrMM=CorrMM,
             ConvOp=conv.ConvOp, conv2d_grad_wrt_inputs=conv2d_grad_wrt_inputs, conv2d_grad_wrt_weights=conv2d_grad_wrt_weights)


class Program(NamedTuple):
    """costs : 'c01b', where bc01 looks slow everywhere; 'model', as users have it; or a number, which draws them at random."""

    costs: str
    lines: Tuple[str, ...]

    def __str__(self):
        return "\n".join(("# costs: %s" % self.costs,) + self.lines) + "\n"

    @classmethod
    def read(cls, text):
        """What `str` wrote; further comments are left out."""
        costs, = re.findall("^# costs: (.*)$", text, re.M)
        return cls(costs, tuple(line for line in text.splitlines() if line.strip() and not line.startswith("#")))


class Built(NamedTuple):
    """A program's graph. `calls` are the values of its inputs, one list for each call."""

    inputs: list
    outputs: list
    updates: List[tuple]
    calls: List[list]


def build(program, mode):
    """Run the lines of a program, whose loops are compiled in `mode`."""
    inputs, outputs, updates, calls = [], [], [], [[], []]

    def given(shape=(), then=None, broadcast=(), dtype="float32", fractions=False, values=None):
        """An input; `then` is its shape in the last call, `broadcast` its broadcastable axes, `values` are those of integers."""
        drawn = [_draw(shape_of_call, len(inputs), dtype, fractions, values) for shape_of_call in (shape, then or shape)]
        inputs.append(T.TensorType(dtype, [axis in broadcast for axis in range(drawn[0].ndim)])("x%d" % len(inputs)))
        for call, value in zip(calls, drawn):
            call.append(value)
        return inputs[-1]

    def shared(shape, broadcast=(), fractions=False, seed=0):
        value = _draw(shape, 100 + seed, "float32", fractions, None, most=1)
        return theano.shared(value, broadcastable=[axis in broadcast for axis in range(value.ndim)], name="w%d" % seed)

    names = dict(NAMES, given=given, shared=shared, output=lambda *variables: outputs.extend(variables), mode=mode,
                 update=lambda variable, new: updates.append((variable, new)))
    exec("\n".join(program.lines), names)
    other_strides = [np.asfortranarray(value) for value in calls[0]]
    return Built(inputs, outputs, updates, [calls[0], other_strides, calls[1]])


def _draw(shape, seed, dtype, fractions, values, most=2):
    """Small whole numbers, in whose sums nothing is rounded, or fractions; integers are those that the program says."""
    if values is not None:
        return np.array(values, dtype)
    rng = np.random.RandomState(seed)
    if dtype == "uint8":
        return rng.randint(0, 4, shape).astype(dtype)
    return np.asarray(rng.standard_normal(shape) if fractions else rng.randint(-most, most + 1, shape)).astype(dtype)


@contextlib.contextmanager
def costs_of(program):
    """Within it plans are made by the program's costs."""
    own = {name: getattr(Machine, name) for name in ("stock_conv_seconds", "stock_pool_seconds", "conversion_seconds")}
    forced = dict(stock_conv_seconds=1.0, stock_pool_seconds=1.0, conversion_seconds=1e-3)
    for name in own if program.costs != "model" else ():
        setattr(Machine, name, lambda self, *work, _name=name, **more: forced[_name] * _share(program.costs, _name, work, more))
    try:
        yield
    finally:
        for name, method in own.items():
            setattr(Machine, name, method)


def _share(costs, name, work, more):
    """1, and more for conversions of many bytes, so that plans are not equally cheap; or drawn, which is to say it follows from
    what it is for: a number in [0, 1), one time in four 0, by which a convolution stays in bc01."""
    if costs == "c01b":
        return 1 + work[0] / 1e9 if name == "conversion_seconds" else 1.0
    number = int(hashlib.sha256(repr((costs, name, work, more)).encode()).hexdigest()[:8], 16)
    return 0.0 if number % 4 == 0 else number / 2.0 ** 32
