"""What the report knows besides its table: places in the program, what would change the outcome, files, copies."""
import json

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile import In, Out
from theano.compile.function_module import std_fgraph
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt import written
from layoutopt.facts import ends
from layoutopt.rewrites.constraints import FORWARD, MAX_POOL, POOLS
from layoutopt.rewrites.cost import ConvWork, Machine, winograd_tiles
from layoutopt.rewrites.hints import hint_of_batch, hints_of
from layoutopt.rewrites.record import recorded
from layoutopt.rewrites.shapes import Shapes
from layoutopt.rewrites.sites import read_site


def tensor4(name):
    return tt.TensorType("float32", (False,) * 4)(name)


def report_of(inputs, outputs):
    """The report on a graph that is optimized, and not compiled."""
    graph, _ = std_fgraph([In(x) for x in inputs], [Out(x) for x in outputs])
    theano.Mode("py", "fast_run").including("layoutopt").optimizer.optimize(graph)
    return recorded(graph)


def site_of(batch, filters, **parameters):
    x, w = tensor4("x"), tensor4("w")
    y = conv2d(x, w, input_shape=(batch, 64, 28, 28), filter_shape=(filters, 64, 5, 5), **parameters)
    return read_site(y.owner, Shapes(theano.gof.FunctionGraph([x, w], [y], clone=False, features=[tt.opt.ShapeFeature()])))


def conv(x, w):
    return conv2d(x, w, input_shape=(64, 3, 28, 28), filter_shape=(16, 3, 5, 5))


def pool(y):
    return pool_2d(y, (2, 2), ignore_border=True)


def test_gradients_have_the_place_of_what_they_are_gradients_of():
    x, w = tensor4("x"), tensor4("w")
    y = conv(x, w)
    for _ in range(6):
        y = tt.tanh(y)  # so deep that Theano's own frames fill what it keeps
    h = pool(y)
    sites = report_of([x, w], [h] + tt.grad(h.sum(), [x, w])).record.sites
    places = {site.kind in POOLS: set() for site in sites}
    for site in sites:
        places[site.kind in POOLS].add(site.place)
    assert {kind: len(place) for kind, place in places.items()} == {True: 1, False: 1}
    assert [places[False], places[True]] == [{"test_explain.py:%d" % (of.__code__.co_firstlineno + 1)} for of in (conv, pool)]


def test_more_filters_are_advised_where_the_model_says_so():
    machine = Machine()
    site = site_of(64, 12)
    assert hints_of(site, "bc01", machine, "layoutopt") == hints_of(site, "bc01", machine, "cuda_convnet") != ()
    assert hints_of(site_of(64, 16), "bc01", machine, "layoutopt") == ()
    assert hints_of(site_of(64, 12, filter_dilation=(2, 2)), "bc01", machine, "layoutopt") == ()
    hint, = hints_of(site, "bc01", machine, "cuda_convnet")
    tiles = winograd_tiles(FORWARD, (5, 5), (1, 1), (28, 28), (24, 24))
    work = ConvWork(FORWARD, 64, 64, 12, 64 * 25, 24 * 24, 28 * 28, tiles=tiles)
    saved = machine.stock_conv_seconds(work) - machine.c01b_conv_seconds(work._replace(filters=16))
    assert hint == "12 filters: pad to 16 and this site would save %.3g ms a call" % (1e3 * saved)


def test_larger_batches_are_advised_where_they_fill_vectors():
    machine = Machine()

    def site(batch, filters):
        return site_of(batch, filters, subsample=(2, 2))  # with stride 1 Winograd's algorithm has tiles to fill vectors with

    hint = hint_of_batch([site(20, 12)], ["c01b"], machine, "layoutopt")
    work = ConvWork(FORWARD, 20, 64, 12, 64 * 25, 12 * 12, 28 * 28, 4)
    now, then = (1e3 * machine.c01b_conv_seconds(work._replace(batch=batch)) for batch in (20, 32))
    assert hint == ("With batches of 32 in place of 20 the convolutions and poolings would take %.3g ms for 32 images, not %.3g."
                    % (then, now * 32 / 20))
    assert hint_of_batch([site(20, 16)], ["c01b"], machine, "layoutopt") == ""  # the filters fill them
    assert hint_of_batch([site(32, 16)], ["c01b"], machine, "layoutopt") == ""
    assert hint_of_batch([site(20, 16), site(40, 16)], ["c01b"] * 2, machine, "layoutopt") == ""
    assert hint_of_batch([site(None, 16)], ["c01b"], machine, "layoutopt") == ""


def test_what_ended_the_layout_has_its_price():
    x, w = tensor4("x"), tensor4("w")
    report = report_of([x, w], [tt.sort(pool(conv(x, w)), axis=1)])
    end, = ends(report.record)
    assert end["op"].startswith("SortOp at test_explain.py:")
    last = report.record.conversions[-1]
    assert end["seconds"] == last.seconds and last.to == "bc01"
    assert "what ended it cost" in str(report)
    assert MAX_POOL in [site.kind for site in report.record.sites]


def test_files_by_their_suffix(tmp_path, capsys):
    x, w = tensor4("x"), tensor4("w")
    report = report_of([x, w], [conv(x, w)])
    for name in ("report.txt", "report.json", "report.html"):
        for _ in range(2):
            written.write(report, str(tmp_path / name))
    assert (tmp_path / "report.txt").read_text().count("1 of 1 convolutions") == 2
    assert len(json.loads((tmp_path / "report.json").read_text())["functions"]) == 2
    assert (tmp_path / "report.html").read_text().count("<!DOCTYPE html>") == 1
    written.write(report, str(tmp_path / "no" / "report.json"))
    written.write(report, "-")
    err = capsys.readouterr().err
    assert "layoutopt: no report in %s: No such file or directory\n" % (tmp_path / "no" / "report.json") in err
    assert str(report) in err


def test_a_copy_keeps_the_report():
    x = tensor4("x")
    w = theano.shared(np.ones((16, 3, 5, 5), "float32"), "filters")
    f = theano.function([x], conv2d(x, w, input_shape=(64, 3, 28, 28)), mode=mode(True))
    assert layoutopt.explain(f.copy()).record is layoutopt.explain(f).record is not None
    plain = theano.function([x], conv2d(x, w), mode=mode(False))
    assert layoutopt.explain(plain).record is None and "compiled without the flag" in str(layoutopt.explain(plain))
    with pytest.raises(TypeError, match="got str"):
        layoutopt.explain("f")
