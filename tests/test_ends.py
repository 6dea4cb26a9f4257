"""Where the layout ends, the report names the op, its place in the program and the reason."""
import pytest
import theano
import theano.tensor as T
from theano.gof import Op
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.rewrites.cost import Machine
from cheap_mode import mode
from test_rewrite import images, weights

FLAGGED = mode(True)


class Unlinked(Op):
    """An op that nobody has heard of; it is never run."""

    def make_node(self, x):
        return theano.Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        raise NotImplementedError

    def infer_shape(self, node, shapes):
        return shapes


# What is done to images between two convolutions: the op and the reason that the report must give.
ENDS = {
    "no rule": (Unlinked(), "Unlinked", "there is no rule for it"),
    "unknown batch": (lambda h: h.reshape((-1, 4, 6, 6)), "Reshape", "nothing says that the first axis keeps its size"),
    "index": (lambda h: h + T.cast(T.argmax(h, axis=(0, 1), keepdims=True), "float32"), "Argmax",
              "its index counts through several axes"),
    "axis": (lambda h: T.join(T.iscalar("axis"), h, h), "Join", "its axis is not constant"),
    "behind another op": (lambda h: T.tanh(Unlinked()(T.tanh(h))), "Unlinked", "there is no rule for it"),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends(name):
    between, op, reason = ENDS[name]
    x, _ = images()
    h = T.nnet.relu(conv2d(x, weights(4, 4, name="w1"), border_mode="half"))
    out = conv2d(between(h), weights(3, 4, name="w2"))
    inputs = [v for v in theano.gof.graph.inputs([out]) if v.owner is None and v.name in ("x", "axis")]
    report = layoutopt.explain(theano.function(inputs, out, mode=FLAGGED))
    ends = [end for conversion in report.record.conversions for end in conversion.ends]
    assert ends
    for end in ends:
        assert end.startswith("%s at test_ends.py:" % op) and reason in end, end
    assert "the layout ends at %s at test_ends.py:" % op in " ".join(str(report).split())


def test_no_end_where_there_is_none():
    x, _ = images()
    f = theano.function([x], conv2d(T.tanh(conv2d(x, weights(4, 4))), weights(3, 4, name="w2")), mode=FLAGGED)
    assert [conversion.ends for conversion in layoutopt.explain(f).record.conversions] == 4 * [()]


def test_an_op_that_is_faster_in_bc01(monkeypatch):
    """The pooling between two convolutions is the end, and neither of these, whose layout it interrupts."""
    monkeypatch.setattr(Machine, "stock_conv_seconds", lambda self, work: 1.0)
    monkeypatch.setattr(Machine, "c01b_pool_seconds", lambda self, work: 0.5)
    x, _ = images()
    h = pool_2d(conv2d(x, weights(4, 4), border_mode="half"), (2, 2), ignore_border=True)
    f = theano.function([x], conv2d(h, weights(3, 4, name="w2")), mode=FLAGGED)
    ends = [conversion.ends for conversion in layoutopt.explain(f).record.conversions if conversion.ends]
    assert len(ends) == 2  # into the pooling and out of it
    for end, in ends:
        assert end.startswith("Pool at test_ends.py:") and end.endswith(": c01b does not pay there")
