"""Loops: the graph of a step is rewritten like any other, and what is the same in every step is converted once, before them.

Theano's C code for the loop itself does not compile on Python 3.11; in the mode used here it runs in Python, on any version.
"""
import numpy as np
import theano
import theano.tensor as T
from theano.scan_module.scan_op import Scan
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.kernels import ToC01B
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, conversions, op_count, weights, whole

STEPS, BATCH = 3, 16
STOCK, FLAGGED = mode(False), mode(True)


def loop(chosen, step, sequences, states=(None,), constants=()):
    """The results of all steps; the step is compiled in the mode `chosen`."""
    results, _ = theano.scan(step, sequences=sequences, outputs_info=list(states), non_sequences=list(constants), mode=chosen)
    return results


def check(inputs, outputs_of, values):
    """Compile the outputs that `outputs_of(mode)` makes both ways and compare exactly.

    Returns the flagged function and those of its loops.
    """
    stock, flagged = (theano.function(inputs, outputs_of(chosen), mode=chosen) for chosen in (STOCK, FLAGGED))
    for expected, actual in zip(stock(*values), flagged(*values)):
        np.testing.assert_array_equal(expected, actual)
        assert abs(expected).max() < 2 ** 24  # whole numbers are exact up to there
    return flagged, [node.op.fn for node in flagged.maker.fgraph.toposort() if isinstance(node.op, Scan)]


def converted_before(f):
    """Names of what a function converts outside of its loops."""
    return sorted(node.inputs[0].name for node in f.maker.fgraph.apply_nodes if isinstance(node.op, ToC01B))


def sequence(*shape):
    x = T.TensorType("float32", (False,) * 5)("x")
    return x, whole(STEPS, BATCH, *shape, most=1)


def recurrent(w, u):
    """A step of a convolutional recurrent network: from images and the state before to the state after."""
    return lambda x, h, *_: T.clip(conv2d(x, w, border_mode="half") + conv2d(h, u, border_mode="half"), 0, 2)


def no_state(x, w):
    return T.alloc(np.float32(0), x.shape[1], w.shape[0], x.shape[3], x.shape[4])


def test_recurrent_convolutions_and_their_gradients():
    """Filters are converted before the loop, there and back; in it, what goes from step to step is bc01."""
    x, value = sequence(4, 6, 5)
    w, u = weights(5, 4, name="w"), weights(5, 5, name="u")

    def outputs(chosen):
        states = loop(chosen, recurrent(w, u), [x], [no_state(x, w)], [w, u])
        return [states] + T.grad(states[-1].sum(), [w, u])

    f, steps = check([x], outputs, [value])
    assert len(steps) == 2
    assert [op_count(step, *BC01_OPS) for step in steps] == [0, 0]
    assert not [name for step in steps for name in conversions(step) if name in ("w_copy", "u_copy", "w", "u")]
    assert converted_before(f) == ["u", "w"]


def test_a_step_of_each_image_without_a_state():
    """Features of every frame of a film: the filters of all layers are converted before the loop."""
    x, value = sequence(3, 12, 11)
    ws = [weights(4, 3, name="w1"), weights(5, 4, name="w2")]

    def step(frame, w1, w2):
        h = T.nnet.relu(pool_2d(conv2d(frame, w1), (2, 2), ignore_border=True))
        return conv2d(h, w2).sum(axis=(2, 3))

    f, (features,) = check([x], lambda chosen: [loop(chosen, step, [x], constants=ws)], [value])
    assert op_count(features, *BC01_OPS) == 0
    assert len(conversions(features)) == 2  # the frame, and what is left of it
    assert converted_before(f) == ["w1", "w2"]


def test_filters_that_a_step_also_reads_in_bc01_stay():
    x, value = sequence(4, 6, 5)
    w = weights(5, 4, name="w")

    def step(frame, w):
        return conv2d(frame, w).sum() + T.cumsum(w * frame.sum(), axis=0).sum()

    f, (inner,) = check([x], lambda chosen: [loop(chosen, step, [x], constants=[w])], [value])
    assert op_count(inner, *BC01_OPS) == 0
    assert "w_copy" in conversions(inner)


def test_a_loop_without_the_flag_is_left_alone():
    """The step's own mode decides, as it does for everything else that Theano does to it."""
    x, value = sequence(4, 6, 5)
    w = weights(5, 4, name="w")

    f = theano.function([x], loop(STOCK, lambda frame, w: conv2d(frame, w).sum(), [x], constants=[w]), mode=FLAGGED)
    f(value)
    inner, = [node.op.fn for node in f.maker.fgraph.apply_nodes if isinstance(node.op, Scan)]
    assert layoutopt.explain(f).record is None and layoutopt.explain(inner).record is None
    assert converted_before(f) == []


def test_the_report_on_a_function_has_those_on_its_loops():
    x, value = sequence(4, 6, 5)
    w = weights(5, 4, name="w")
    f = theano.function([x], loop(FLAGGED, lambda frame, w: conv2d(frame, w).sum(), [x], constants=[w]), mode=FLAGGED)
    (name, inner), = layoutopt.explain(f).loops
    assert "In each step of %s:\nlayoutopt: 1 of 1 convolutions and poolings in c01b" % name in str(layoutopt.explain(f))
    assert inner.record.applied
