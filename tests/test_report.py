"""The report's table: what was planned beside what Theano's profile says, within a terminal's width."""
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.profiling import ProfileStats
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.corr import BaseCorrMM
from theano.tensor.signal.pool import pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt.explain import WIDTH
from layoutopt.kernels import FilterActs
from layoutopt.rewrites.follow import Followed


@pytest.fixture(scope="module")
def graph():
    """A convolution and a pooling that go to c01b, and a dilated convolution that stays; with gradients."""
    x = tt.TensorType("float32", (False,) * 4)("a_name_of_the_images_that_is_so_long_that_it_does_not_fit_into_the_table")
    w, v = (theano.shared(np.ones(shape, "float32"), "filters") for shape in ((16, 3, 5, 5), (4, 16, 3, 3)))
    h = pool_2d(conv2d(x, w, input_shape=(64, 3, 28, 28)), (2, 2), ignore_border=True)
    loss = (conv2d(h, v, filter_dilation=(2, 2)) ** 2).sum()
    return [x], [loss] + tt.grad(loss, [w, v])


def compiled(graph, profile):
    return theano.function(*graph, mode=mode(True), profile=profile)


def test_profiled_seconds_stand_beside_what_was_planned(graph):
    f = compiled(graph, ProfileStats(atexit_print=False))
    assert layoutopt.explain(f).profiled is None  # not called yet
    calls = 3
    for _ in range(calls):
        f(np.ones((64, 3, 28, 28), "float32"))
    report = layoutopt.explain(f)
    sites = report.record.sites
    assert {site.layout for site in sites} == {"bc01", "c01b"}
    assert set(report.profiled) == ({("site", i) for i in range(len(sites))} |
                                    {("conversion", i) for i in range(len(report.record.conversions))})

    nodes = next(feature for feature in f.maker.fgraph._features if isinstance(feature, Followed)).nodes()
    for item, node in nodes.items():
        assert report.profiled[item] == f.profile.apply_time[node] / calls
    for i, site in enumerate(sites):
        lowered = BaseCorrMM if site.op.startswith("AbstractConv") else object
        assert isinstance(nodes["site", i].op, lowered)
        assert (type(nodes["site", i].op).__name__ == site.op) == (lowered is object)
    assert len({nodes["site", i] for i in range(len(sites))}) == len(sites)

    text = str(report)
    assert "not profiled" not in text
    header = next(line for line in text.splitlines() if line.endswith("planned     profiled"))
    rows = [line for line in text.splitlines() if line.endswith(" ms") and len(line) == len(header)]
    assert len(rows) == len(report.profiled)


def test_without_a_profile_there_is_one_column(graph):
    f = compiled(graph, False)
    f(np.ones((64, 3, 28, 28), "float32"))
    report = layoutopt.explain(f)
    assert report.profiled is None and "profiled" not in str(report) and "planned" in str(report)


def test_lines_fit_a_terminal(graph):
    report = layoutopt.explain(compiled(graph, False))
    for profiled in (None, {}, {("site", 0): 123.456}):
        report.profiled = profiled
        assert max(map(len, str(report).splitlines())) <= WIDTH == 80
    assert str(report).count("not profiled") == len(report.record.sites) + len(report.record.conversions) - 1


def test_values_are_followed_to_what_replaces_them():
    x, y = tt.fmatrix("x"), tt.fmatrix("y")
    old, flipped, other = FilterActs()(*(tt.TensorType("float32", (False,) * 4)() for _ in range(2))), None, x + y
    flipped = old[::-1]
    followed = Followed([old, other], [])
    followed.on_change_input(None, None, 0, old, flipped)  # put behind it: it stays
    assert followed.nodes() == {("site", 0): old.owner}  # a sum is no site
    new = FilterActs()(*old.owner.inputs)
    behind = new[::-1]
    followed.on_change_input(None, None, 0, old, behind)
    assert followed.nodes() == {("site", 0): new.owner}
    followed.on_change_input(None, None, 0, behind, old)  # taken back
    assert followed.nodes() == {("site", 0): old.owner}
    assert pickle.loads(pickle.dumps(followed)).nodes() == {}
