"""What happens to functions once they are compiled: copied, pickled, called in all of Theano's ways, taken to other processes.

A scenario is a function of a mode that gives arrays and error types; with layoutopt these must be those of stock Theano.
"""
import copy
import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano import In, Out
from theano.compile.builders import OpFromGraph
from theano.compile.function_module import UnusedInputError
from theano.compile.profiling import ProfileStats
from theano.gof.vm import VM_Linker
from theano.tensor.nnet import conv2d

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt.kernels import FilterActs
from test_rewrite import BC01_OPS, op_count

STOCK = mode(False)
# The harder case: updates overwrite what they can, and storage lasts from call to call.
FLAGGED = theano.Mode(VM_Linker(allow_gc=False, c_thunks=False, use_cloop=False), "fast_run").excluding("fusion").including(
    "layoutopt")
SHAPE = (16, 3, 12, 10)


def whole(shape, seed=0, most=2):
    """Random whole numbers, float32."""
    return np.random.RandomState(seed).randint(-most, most + 1, shape).astype("float32")


def images(seed):
    return whole(SHAPE, seed)


class Net:
    """One layer of convolution: a graph, its shared variables, and functions on them."""

    def __init__(self, mode):
        self.mode = mode
        self.x, self.w, self.b = T.ftensor4("x"), filters("w"), theano.shared(whole((6,), 1), name="b")
        self.out = T.clip(conv2d(self.x, self.w) + self.b.dimshuffle("x", 0, "x", "x"), -3, 3)
        gradients = T.grad((self.out * T.sgn(self.out - 1)).sum(), [self.w, self.b])
        self.updates = [(p, T.clip(p - g, -2, 2)) for p, g in zip((self.w, self.b), gradients)]

    def function(self, inputs=None, outputs=None, **options):
        f = theano.function([self.x] if inputs is None else inputs, self.out if outputs is None else outputs, mode=self.mode,
                            **options)
        if self.mode is not STOCK:
            assert op_count(f, *BC01_OPS) == 0 and op_count(f, FilterActs) > 0
        return f

    def step(self, **options):
        return self.function(updates=self.updates, **options)

    def state(self):
        return [self.w.get_value(), self.b.get_value()]


def filters(name, seed=5):
    return theano.shared(whole((6, 3, 3, 3), seed, 1), name=name)


def error_of(call, *arguments, **named):
    """The type of what a call raises."""
    with pytest.raises(Exception) as caught:
        call(*arguments, **named)
    return caught.type


def copied(mode):
    """Not in place: of a copy Theano itself forgets the order in which values are read and then overwritten."""
    net, other = Net(STOCK if mode is STOCK else FLAGGED.excluding("inplace")), filters("other", 6)
    step = net.step()
    twins = [step, step.copy(), step.copy(share_memory=True), step.copy(swap={net.w: other}), step.copy(delete_updates=True),
             copy.copy(step), copy.deepcopy(step), step]
    for seed, twin in enumerate(twins):
        yield twin(images(seed))
        yield from net.state() + [other.get_value()]


def pickled(mode):
    net = Net(mode)
    step, evaluate = net.step(), net.function()
    step(images(0))
    for again in (False, True):
        with theano.change_flags(reoptimize_unpickled_function=again):
            step_2, evaluate_2, (w, b) = pickle.loads(pickle.dumps((step, evaluate, (net.w, net.b)), -1))
        for seed in (1, 2):
            yield step_2(images(seed))
            yield evaluate_2(images(seed))
            yield from (w.get_value(), b.get_value())
    yield from net.state() + [evaluate(images(1))]


def profiled(mode):
    stats = ProfileStats(atexit_print=False)
    step = Net(mode).step(profile=stats)
    yield from (step(images(0)), step.copy(profile=ProfileStats(atexit_print=False))(images(1)), np.array(stats.fct_callcount))


def given(mode):
    net, data, index, idle = Net(mode), theano.shared(whole((40, 3, 12, 10))), T.lscalar("index"), T.fmatrix("idle")
    batch = data[index * 16:(index + 1) * 16]
    step = net.step(inputs=[index, idle], givens={net.x: batch, net.b: net.b * 2}, on_unused_input="ignore")
    for number in (0, 1, 2):
        yield step(number, np.zeros((1, 1), "float32"))
        yield from net.state()
    assert error_of(net.function, inputs=[net.x, idle], on_unused_input="raise") is UnusedInputError
    doubled = theano.clone(net.out, replace={net.w: net.w * 2, net.x: net.x[::-1]})
    yield net.function(outputs=doubled)(images(0))


def shared_by_several(mode):
    net = Net(mode)
    step, evaluate = net.step(), net.function()
    net.w.default_update = net.w[::-1]
    calls = [step, net.function(), net.function(no_default_updates=True), net.function(no_default_updates=[net.w]), evaluate,
             step]
    for seed, call in enumerate(calls):
        yield call(images(seed))
        yield from net.state()
    yield from net.function(outputs=[net.w, net.out])(images(0))


def borrowed(mode):
    net = Net(mode)
    step = net.step()
    for seed in range(3):
        yield step(images(seed))
        inside = net.w.get_value(borrow=True)
        inside[0] = seed
        inside.ravel()[5:9] = -2
        yield step(images(seed))
        net.w.get_value()[...] = 9  # a copy
        yield from net.state()
        net.w.set_value(whole((6, 3, 3, 3), seed), borrow=True)
    yield step(images(4))


def inputs(mode):
    net = Net(mode)
    x, doubles = net.x, images(0).astype("float64")
    for options in (dict(mutable=True), dict(borrow=True), dict(strict=True), dict(allow_downcast=True), dict(value=images(7))):
        f = net.function(inputs=[In(x, **options)])
        yield from (f(images(1)), f(images(2)[::-1, :, ::-1]))
        if "value" in options:
            yield f()
        elif "allow_downcast" in options:
            yield from (f(doubles), f(doubles.tolist()))
        else:
            yield error_of(f, doubles)
    f.trust_input = True
    yield f(images(3))
    state = T.ftensor4("state")
    updated = state - T.grad(T.sqr(conv2d(x, state)).sum(), state)
    f = net.function(inputs=[x, In(state, value=whole((6, 3, 3, 3)), update=T.clip(updated, -2, 2), mutable=True)],
                     outputs=conv2d(x, state))
    for seed in (1, 2):
        yield from (f(images(seed)), f["state"].copy())


def outputs(mode):
    net = Net(mode)
    conv = net.out * 2
    f = net.function(outputs=[net.x, conv, Out(conv[:, 1], borrow=True), Out(net.out, borrow=True), conv.sum(axis=0)])
    first = f(images(0))
    before = copy.deepcopy(first)
    second = f(images(1))
    for number in (0, 1, 4):
        np.testing.assert_array_equal(first[number], before[number])  # not overwritten by the next call
        assert first[number].flags.c_contiguous and first[number].flags.writeable
    yield from before + second
    named = net.function(outputs={"a": net.out, "b": conv})
    yield from (named(images(2))["b"], named(images(3))["a"])


def from_graph(mode):
    net, v = Net(mode), T.ftensor4("v")
    for inline in (False, True):
        layer = OpFromGraph([net.x, v], [conv2d(net.x, v)], inline=inline, mode=mode)
        out = layer(net.x, net.w)
        f = theano.function([net.x], [out, T.grad(out.sum(), net.w)], mode=mode)
        yield from f(images(0))


SCENARIOS = [copied, pickled, profiled, given, shared_by_several, borrowed, inputs, outputs, from_graph]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_as_in_stock_theano(scenario):
    expected, actual = list(scenario(STOCK)), list(scenario(FLAGGED))
    assert len(expected) == len(actual) > 1
    for number, (right, value) in enumerate(zip(expected, actual)):
        if isinstance(right, type):
            assert value is right
        else:
            np.testing.assert_array_equal(np.asarray(value), np.asarray(right), "value %d" % number)


# ---------------------------------------------------------------------------------------------------------------------
# Weights that are stored in c01b, as programs meet them.


def lies_in_c01b(variable):
    return variable.container.storage[0].transpose(1, 2, 3, 0).flags.c_contiguous


def test_values_lie_as_theano_leaves_them():
    """Bytes, not elements alone: programs hash them, write them to files, hand them to C."""
    net = Net(FLAGGED)
    step = net.step()
    step(images(0))
    assert lies_in_c01b(net.w)
    value = net.w.get_value()
    assert value.flags.c_contiguous and value.flags.owndata and lies_in_c01b(net.w)
    assert hashlib.sha1(value).digest() == hashlib.sha1(value.tobytes()).digest()
    inside = net.w.get_value(borrow=True)
    assert inside.flags.c_contiguous and net.w.get_value(borrow=True) is inside
    inside.ravel()[7] = 5
    assert net.w.get_value().ravel()[7] == 5
    step(images(1))
    assert lies_in_c01b(net.w)  # again


def test_what_the_user_put_in_is_given_back_as_it_was():
    """Strides of the user's own are no business of ours, stored in c01b or not."""
    v = theano.shared(np.asfortranarray(whole((5, 4))))
    assert v.get_value().flags.f_contiguous and v.get_value(borrow=True).flags.f_contiguous
    net = Net(FLAGGED)
    net.step()(images(0))
    mine = whole((6, 3, 3, 3))
    net.w.set_value(mine, borrow=True)
    assert net.w.get_value(borrow=True) is mine


# ---------------------------------------------------------------------------------------------------------------------
# Other processes.

ELSEWHERE = """
import pickle, sys
import numpy as np
with open("weights.pkl", "rb") as file:
    w = pickle.load(file)
saved = np.load("weights.npy")
print("layoutopt" in sys.modules, np.array_equal(w.get_value(), saved), saved.flags.c_contiguous)
import theano
with open("function.pkl", "rb") as file:
    step, x, out, state = pickle.load(file)
print("layoutopt" in sys.modules, np.array_equal(step(x), out), np.array_equal(step.get_shared()[0].get_value(), state[0]))
print(type(w).__module__, any("FilterActs" in str(node.op) for node in step.maker.fgraph.apply_nodes))
"""


def run(program, folder, flags="", **options):
    """The lines that a program prints in an interpreter of its own, which must succeed."""
    # Theano keeps a compiled DimShuffle under Python's hash of its source: with a seed it is found again.
    environ = dict(os.environ, THEANO_FLAGS=os.environ.get("THEANO_FLAGS", "") + flags, PYTHONHASHSEED="0")
    done = subprocess.run([sys.executable, "-c", program], cwd=str(folder), env=environ, timeout=300, stdout=subprocess.PIPE,
                          universal_newlines=True, **options)
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize("flags", ["", ",optimizer_including=layoutopt,reoptimize_unpickled_function=True"], ids=["off", "on"])
def test_checkpoints_and_functions_in_another_process(tmp_path, flags):
    net = Net(FLAGGED)
    step = net.step()
    step(images(0))
    with open(str(tmp_path / "weights.pkl"), "wb") as file:
        pickle.dump(net.w, file, -1)
    assert b"layoutopt" not in (tmp_path / "weights.pkl").read_bytes()
    np.save(str(tmp_path / "weights.npy"), net.w.get_value())
    before = pickle.dumps(step, -1)
    out = step(images(1))
    with open(str(tmp_path / "function.pkl"), "wb") as file:
        pickle.dump((pickle.loads(before), images(1), out, net.state()), file, -1)
    assert run(ELSEWHERE, tmp_path, flags) == ["%s True True" % bool(flags), "True True True", "theano.tensor.sharedvar True"]


# The process group gets SIGINT, as by Ctrl-C in a terminal, while the compiler runs.
INTERRUPTED = """
import os, signal, threading, time
import numpy as np, theano, theano.tensor as T
from theano.gof.vm import VM_Linker
from layoutopt.kernels import ToC01B

class Unheard(ToC01B):
    def c_code_cache_version(self):
        return ()  # compiled anew, and kept for this process alone

def compiling():
    # A child is g++ with a module, and not one that Theano asks what the compiler can do.
    def command(child):
        try:
            return open("/proc/%s/cmdline" % child).read()
        except OSError:  # it has ended
            return ""
    return any("mod.cpp" in command(child) for child in open("/proc/self/task/%d/children" % os.getpid()).read().split())

def interrupt():
    while not compiling():
        time.sleep(0.002)
    time.sleep(0.2)
    os.killpg(0, signal.SIGINT)

def compiled():
    x = T.ftensor4()
    return theano.function([x], Unheard()(x), mode=theano.Mode(VM_Linker(use_cloop=False, c_thunks=False), None))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs, as tests may be, ignore interruptions
threading.Thread(target=interrupt, daemon=True).start()
try:
    compiled()
except KeyboardInterrupt:
    print("interrupted")
value = np.arange(120, dtype="float32").reshape(2, 3, 4, 5)
print(np.array_equal(compiled()(value), np.moveaxis(value, 0, -1)))
"""


def test_interrupted_compilation(tmp_path):
    """The next compilation works. (Theano gives its lock back only where the interruption meets the right line, or at exit.)"""
    assert run(INTERRUPTED, tmp_path, start_new_session=True) == ["interrupted", "True"]
