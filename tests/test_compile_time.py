"""What compilation may cost, in counts: a graph without convolutions pays a look at its nodes, and no configuration compiles C++
that another one has compiled. `benchmarks/compile_time.py` measures the seconds."""
import itertools

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.gof.cmodule import ModuleCache, get_module_hash
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt import optimizer
from layoutopt.kernels import FilterActs, ImageActs, MaxPool, MaxPoolGrad, ToBC01, ToC01B, WeightActs
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.base import C01bOp
from layoutopt.rewrites.cost import Machine
from layoutopt.rewrites.record import recorded

# ---------------------------------------------------------------------------------------------------------------------
# Graphs without convolutions.

STAGES = ("carry_layout", "Shapes", "clock_for", "find_region", "solve", "apply_plan", "drop_copies", "record")


def called(monkeypatch, build):
    """The stages of the optimizer that compiling `build()` calls."""
    calls = []
    for stage in STAGES:
        monkeypatch.setattr(optimizer, stage, lambda *args, stage=stage, real=getattr(optimizer, stage), **kwargs: (
            calls.append(stage), real(*args, **kwargs))[1])
    return build(), calls


def test_a_graph_without_convolutions_is_only_looked_at(monkeypatch):
    x, w = tt.fmatrix("x"), theano.shared(np.ones((4, 3), "float32"))
    loss = tt.nnet.softmax(tt.tanh(tt.dot(x, w))).sum()
    f, calls = called(monkeypatch, lambda: theano.function([x], [loss, tt.grad(loss, w)], mode=mode(True)))
    assert calls == []
    assert recorded(f.maker.fgraph) is None


def test_a_graph_with_one_goes_through_all_stages(monkeypatch):
    x, w = tt.ftensor4(), theano.shared(np.ones((16, 3, 5, 5), "float32"))
    f, calls = called(monkeypatch, lambda: theano.function([x], conv2d(x, w, input_shape=(64, 3, 28, 28)), mode=mode(True)))
    assert set(calls) == set(STAGES)
    assert recorded(f.maker.fgraph) is not None


# ---------------------------------------------------------------------------------------------------------------------
# Modules.


@pytest.fixture
def modules(monkeypatch):
    """{(class of our op, its rank): the hashes under which Theano keeps or compiles C++ modules for it}."""
    hashes = {}
    from_key = ModuleCache.module_from_key

    def noted(cache, key, lnk=None, keep_lock=False):
        for node in lnk.node_order:
            if isinstance(node.op, C01bOp):
                hashes.setdefault((type(node.op), node.inputs[0].ndim), set()).add(get_module_hash(lnk.get_src_code(), key))
        return from_key(cache, key, lnk, keep_lock)

    monkeypatch.setattr(ModuleCache, "module_from_key", noted)
    return hashes


@pytest.fixture
def everything_moves(monkeypatch):
    for name, seconds in (("stock_conv_seconds", 1.0), ("stock_pool_seconds", 1.0), ("conversion_seconds", 1e-3)):
        monkeypatch.setattr(Machine, name, lambda self, *work, seconds=seconds: seconds)


CONVOLUTIONS = [
    dict(),
    dict(border_mode="half"), dict(border_mode="full"), dict(border_mode=(2, 0)), dict(border_mode=1),
    dict(subsample=(2, 2)), dict(subsample=(1, 3)), dict(filter_flip=False), dict(subsample=(2, 1), border_mode=(0, 1)),
    dict(num_groups=2),
]
SIZES = [(5, 4, 9, 8), (1, 4, 9, 9), (16, 4, 13, 7)]
POOLS = [dict(ws=(2, 2)), dict(ws=(3, 2), stride=(2, 2)), dict(ws=(3, 3), pad=(1, 1)), dict(ws=(2, 2), ignore_border=False)]
FILTERS = [(6, 3, 3), (2, 1, 1), (1, 3, 2)]


def trained(convolution, size, filters, pool=None, average="max", flags=(False,) * 4):
    """A convolution, perhaps a pooling, and their gradients."""
    groups = convolution.get("num_groups", 1)
    x, w = tt.TensorType("float32", flags)(), tt.ftensor4()
    h = conv2d(x, w, input_shape=size, filter_shape=(filters[0] * groups, size[1] // groups) + filters[1:], **convolution)
    if pool is not None:
        h = pool_2d(h, mode=average, **dict(dict(ignore_border=True), **pool))
    return [x, w], tt.grad((h ** 2).sum(), [x, w])


def configurations():
    """One of everything first; then every convolution, size, filter, pooling and broadcast pattern."""
    for average in ("max", "average_inc_pad"):
        yield trained(CONVOLUTIONS[0], SIZES[0], FILTERS[0], POOLS[0], average)
    for convolution, (size, filters) in itertools.product(CONVOLUTIONS, zip(SIZES, FILTERS)):
        yield trained(convolution, size, filters)
    for pool in POOLS[1:]:
        for average in ("max", "sum", "average_inc_pad"):
            if average == "max" or "pad" not in pool:
                yield trained(CONVOLUTIONS[0], SIZES[0], FILTERS[0], pool, average)
    for axis in range(4):
        size = tuple(1 if i == axis else n for i, n in enumerate((16, 4, 9, 8)))
        yield trained(dict(border_mode="full"), size, FILTERS[0], flags=tuple(i == axis for i in range(4)))


def test_no_configuration_compiles_what_another_has(everything_moves, modules):
    """Each op of ours has one module, and each rank of conversion: later configurations find them in the cache."""
    count = 0
    for count, (inputs, outputs) in enumerate(configurations(), 1):
        theano.function(inputs, outputs, mode=mode(True), on_unused_input="ignore")
    assert {op for op, _ in modules} == {FilterActs, ImageActs, WeightActs, MaxPool, MaxPoolGrad, AvgPool, AvgPoolGrad,
                                         ToC01B, ToBC01}
    assert {op: len(hashes) for op, hashes in modules.items() if len(hashes) != 1} == {}
    assert count > 40
