"""layoutopt.verify: what holds is told with its errors, what does not is found, and nothing of the program is changed."""
import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.tensor.nnet import conv2d
from theano.tensor.shared_randomstreams import RandomStreams
from theano.tensor.signal.pool import pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt import first_call
from layoutopt.rewrites import sites
from layoutopt.verify import compare
from tolerance import gamma, normal


class Program:
    """A training step with a random mask: convolution, pooling, dense layer; and arguments for it."""

    def __init__(self, rng):
        x, y = tt.tensor4("x"), tt.ivector("y")
        self.filters = theano.shared(normal(rng, 16, 3, 5, 5) / 8, "filters")
        self.dense = theano.shared(normal(rng, 16 * 6 * 6, 10) / 24, "dense")
        self.streams = RandomStreams(1)
        h = pool_2d(conv2d(x, self.filters, input_shape=(32, 3, 16, 16)), (2, 2), ignore_border=True)
        h = tt.tanh(h).flatten(2)
        p = tt.nnet.softmax(tt.dot(h * self.streams.binomial(h.shape, p=0.5, dtype="float32"), self.dense))
        loss = tt.nnet.categorical_crossentropy(p, y).mean()
        loss.name = "loss"
        self.updates = [(w, w - np.float32(0.1) * g) for w, g in zip(self.parameters, tt.grad(loss, self.parameters))]
        self.inputs, self.outputs = [x, y], [loss, tt.argmax(p, axis=1)]
        self.arguments = normal(rng, 32, 3, 16, 16), rng.randint(0, 10, 32).astype("int32")

    @property
    def parameters(self):
        return [self.filters, self.dense]

    def compiled(self, flagged=True):
        return theano.function(self.inputs, self.outputs, updates=self.updates, mode=mode(flagged))


@pytest.fixture
def program(rng):
    return Program(rng)


def wrong_gradient(monkeypatch, error):
    """Let the gradient of max-pooling be too large by a relative `error`."""
    stock, roles = sites.TheanoMaxPoolGrad, sites.POOL_SITES[sites.TheanoMaxPoolGrad]
    monkeypatch.setitem(sites.POOL_SITES, stock, roles._replace(build=lambda *a: roles.build(*a) * np.float32(1 + error)))


def test_outputs_and_updates_hold_and_nothing_is_changed(program):
    f, twin = program.compiled(), program.compiled()
    before = [w.get_value(borrow=True, return_internal_type=True) for w in program.parameters]
    copies = [w.get_value() for w in program.parameters]
    errors = layoutopt.verify(f, *program.arguments)
    assert [e.name for e in errors[:2]] == ["loss", "argmax"]
    assert {e.name for e in errors[2:]} >= {"the update of filters", "the update of dense"}
    assert all(e.holds for e in errors)
    for e in errors:
        if e.name in ("the update of filters", "the update of dense"):
            assert 0 < e.allowed < 1e-3 * e.largest, "a tolerance that allows anything proves nothing"
    for w, value, copied in zip(program.parameters, before, copies):
        assert w.get_value(borrow=True, return_internal_type=True) is value
        np.testing.assert_array_equal(value, copied)
    # The random stream goes on from where it was: the same mask, and so the same loss.
    seed = [state.get_value() for state, _ in program.streams.state_updates]
    loss = f(*program.arguments)[0]
    for w, copied in zip(program.parameters, copies):
        w.set_value(copied)
    for (state, _), value in zip(program.streams.state_updates, seed):
        state.set_value(value)
    layoutopt.verify(twin, *program.arguments)
    np.testing.assert_array_equal(twin(*program.arguments)[0], loss)


def test_a_wrong_kernel_is_found_and_named(program, monkeypatch):
    wrong_gradient(monkeypatch, 1e-2)
    f = program.compiled()
    with pytest.raises(layoutopt.LayoutMismatch, match="the first node whose value differs: MaxPoolGrad") as caught:
        layoutopt.verify(f, *program.arguments)
    holds = {e.name: e.holds for e in caught.value.errors}
    assert holds["loss"] and not holds["the update of filters"] and holds["the update of dense"]
    assert "test_verify.py:" in caught.value.node and "\n" not in str(caught.value)


def test_whole_numbers_are_allowed_next_to_nothing():
    x = tt.tensor4("x")
    w = theano.shared(np.ones((16, 2, 3, 3), "float32"))
    f = theano.function([x], conv2d(x, w, input_shape=(16, 2, 8, 8)), mode=mode(True))
    error, = layoutopt.verify(f, np.ones((16, 2, 8, 8), "float32"))
    assert error.error == 0 and error.largest == 18 and error.allowed <= 18 * gamma(100)


def test_by_name_by_dictionary_without_outputs_and_without_sites():
    x = tt.fmatrix("x")
    total = theano.shared(np.float32(0.5), "total")
    f = theano.function([x], {"twice": 2 * x}, updates={total: total + x.sum()}, mode=mode(True))
    assert [e.error for e in layoutopt.verify(f, x=np.full((2, 3), 0.1, "float32"))] == [0, 0]
    assert layoutopt.verify(theano.function([x], mode=mode(True), on_unused_input="ignore"), np.ones((1, 1), "float32")) == []
    assert total.get_value() == np.float32(0.5)


def test_bad_input_is_told():
    x = tt.tensor4("x")
    w = theano.shared(np.ones((16, 2, 3, 3), "float32"))
    f = theano.function([x], conv2d(x, w, input_shape=(16, 2, 8, 8)), mode=mode(True))
    with pytest.raises(TypeError, match="verify takes a compiled Theano function, got int"):
        layoutopt.verify(3)
    with pytest.raises(ValueError, match="verify the original"):
        layoutopt.verify(f.copy(), np.ones((16, 2, 8, 8), "float32"))
    with pytest.raises(ValueError, match="5"):
        layoutopt.verify(f, np.ones((16, 5, 8, 8), "float32"))
    np.testing.assert_array_equal(f(np.ones((16, 2, 8, 8), "float32")), 18)


@pytest.mark.parametrize("got, holds", [([1.0, np.nan], True), ([1.0, 1.0], False), ([np.nan, np.nan], False),
                                        ([1.0], False), ([1.01, np.nan], False), ([np.inf, np.nan], False)])
def test_nan_infinities_and_sizes_count(got, holds):
    exact = np.array([1.0, np.nan], "float32")
    assert compare("y", np.array(got, "float32"), exact, [exact], 1e-6).holds == holds


# ---------------------------------------------------------------------------------------------------------------------
# layoutopt.verify=first_call


@pytest.fixture
def at_first_call(monkeypatch):
    """The flag; the list has the functions that were verified."""
    verified = []
    monkeypatch.setattr(theano.config.layoutopt, "verify", "first_call")
    monkeypatch.setattr(theano.compile.Function, "__call__", theano.compile.Function.__call__)  # taken back afterwards
    verify = first_call.verify
    monkeypatch.setattr(first_call, "verify", lambda f, *a, **k: (verified.append(f), verify(f, *a, **k)))
    return verified


def small_program():
    x = tt.tensor4("x")
    w = theano.shared(np.ones((16, 2, 3, 3), "float32"), "filters")
    y = pool_2d(conv2d(x, w, input_shape=(16, 2, 8, 8)), (2, 2), ignore_border=True)
    return [x], y, [(w, w - tt.grad((y * y).sum(), w))], np.ones((16, 2, 8, 8), "float32")


def test_the_first_call_is_verified_and_no_other(at_first_call):
    inputs, y, updates, images = small_program()
    f = theano.function(inputs, y, updates=updates, mode=mode(True))
    other = theano.function(inputs, y, mode=mode(False))
    expected = other(images)
    assert at_first_call == []  # it was not rewritten
    np.testing.assert_array_equal(f(images), expected)
    f(images)
    assert at_first_call == [f]


def test_a_first_call_that_differs_raises(at_first_call, monkeypatch):
    wrong_gradient(monkeypatch, 0.5)
    inputs, y, updates, images = small_program()
    f = theano.function(inputs, y, updates=updates, mode=mode(True))
    before = updates[0][0].get_value()
    with pytest.raises(layoutopt.LayoutMismatch, match="the update of filters differs"):
        f(images)
    np.testing.assert_array_equal(updates[0][0].get_value(), before)
