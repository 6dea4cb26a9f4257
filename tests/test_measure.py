"""layoutopt.cost=measure: trials do what their sites do, plans follow what a clock says, verdicts are kept and found again.

No test looks at a clock: seconds come from clocks that the tests make up, or from real ones whose readings nothing depends on.
"""
import json
import logging
import multiprocessing
import os

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.gof import FunctionGraph
from theano.tensor.nnet import conv2d
from theano.tensor.opt import ShapeFeature
from theano.tensor.signal.pool import pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt import kept, optimizer, verdicts
from layoutopt.kernels import FilterActs
from layoutopt.rewrites import measured
from layoutopt.rewrites.constraints import ALL, OTHER_POOLS, MAX_POOL_SECOND
from layoutopt.rewrites.cost import Machine
from layoutopt.rewrites.measured import Program, Trial, conversion_trial, site_trial, timed_sites
from layoutopt.rewrites.plan import solve
from layoutopt.rewrites.region import find_region, find_sites
from layoutopt.rewrites.shapes import Assumed, Shapes
from layoutopt.verdicts import Clock, times_in_turns


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYOUTOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "_known", {})
    monkeypatch.setattr(kept, "_told", set())
    return tmp_path / "cache"


def images(name="x"):
    return tt.TensorType("float32", (False,) * 4)(name)


def sites_of(outputs, inputs, clock=None, batch=20):
    """The sites of a graph, and its `Shapes`."""
    fgraph = FunctionGraph(inputs, outputs, clone=True, features=[ShapeFeature()])
    shapes = Shapes(fgraph, Machine(), Assumed(batch=batch), clock)
    return find_sites(fgraph.toposort(), shapes), shapes, fgraph


def training_graph(told=(None, 4, 11, 9), **convolution):
    """Convolution, maximum and average, with gradients: every kind of site but one."""
    x, w = images(), images("w")
    groups = convolution.get("num_groups", 1)
    h = conv2d(x, w, input_shape=told, filter_shape=(6, 4 // groups, 3, 3), **convolution)
    h = pool_2d(pool_2d(h, (2, 2), ignore_border=True), (2, 2), mode="average_inc_pad", ignore_border=True)
    loss = (h ** 2).sum()
    return [x, w], tt.grad(loss, [x, w])


# ---------------------------------------------------------------------------------------------------------------------
# Trials.


@pytest.mark.parametrize("convolution", [{}, dict(border_mode=(1, 2), subsample=(2, 1), filter_flip=False), dict(num_groups=2)],
                         ids=["plain", "strided", "grouped"])
def test_both_programs_of_a_trial_compute_the_site(convolution):
    inputs, outputs = training_graph(**convolution)
    sites, shapes, _ = sites_of(outputs, inputs)
    kinds = []
    for site in sites:
        bc01, c01b = site_trial(site, shapes).build()
        values = bc01.values()
        f = theano.function(bc01.inputs, bc01.outputs, mode=mode(False), on_unused_input="ignore")
        g = theano.function(c01b.inputs, c01b.outputs, mode=mode(False), on_unused_input="ignore")
        expected, = f(*values)
        came, = g(*[np.moveaxis(value, 0, -1) for value in values])
        np.testing.assert_array_equal(np.moveaxis(came, -1, 0), expected)
        assert [value.shape for value in c01b.values()] == [value.shape[1:] + value.shape[:1] for value in values]
        kinds.append(site.kind)
    assert set(kinds) == set(ALL) - {MAX_POOL_SECOND} - set(OTHER_POOLS)  # Theano has no others


def test_conversions_are_timed_in_both_directions():
    x = images()
    _, shapes, fgraph = sites_of([x * 2], [x])
    trial = conversion_trial(fgraph.inputs[0], shapes)
    for program, turned in zip(trial.build(), (lambda v: np.moveaxis(v, 0, -1), lambda v: np.moveaxis(v, -1, 0))):
        value, = program.values()
        assert value.size == 20 * 32 ** 3
        came, = theano.function(program.inputs, program.outputs, mode=mode(False))(value)
        np.testing.assert_array_equal(came, turned(value))


def test_what_needs_no_copy_is_not_timed():
    row, whole, empty = tt.TensorType("float32", (True, False))(), tt.lmatrix(), tt.fmatrix()
    _, shapes, _ = sites_of([row + 1, whole + 1, empty + 1], [row, whole, empty])
    shapes.hint(empty, (0, 3))
    assert [conversion_trial(v, shapes) for v in (row, whole, empty)] == [None] * 3


@pytest.mark.parametrize("change", [dict(subsample=(2, 2)), dict(border_mode=1), dict(filter_flip=False), dict(num_groups=2),
                                    dict(told=(None, 4, 13, 9)), dict(told=(7, 4, 11, 9))], ids=repr)
def test_trials_of_other_parameters_or_sizes_have_other_keys(change):
    keys = []
    for arguments in ({}, {}, change):
        inputs, outputs = training_graph(**arguments)
        sites, shapes, _ = sites_of(outputs, inputs)
        keys.append({json.dumps(site_trial(site, shapes).key) for site in sites})
    assert keys[0] == keys[1] and len(keys[0]) == 7
    assert keys[0] != keys[2]


def test_a_long_call_is_timed_on_part_of_the_batch(monkeypatch):
    inputs, outputs = training_graph()
    sites, shapes, _ = sites_of(outputs, inputs, batch=1000)
    for limit, scale in ((measured.LONGEST_CALL, 1.0), (0.0, 1000 / measured.FEWEST_IMAGES)):
        monkeypatch.setattr(measured, "LONGEST_CALL", limit)
        for site in sites:
            trial = site_trial(site, shapes)
            batches = {value.shape[0] for value in trial.build()[0].values()} - {6}  # filters
            assert trial.scale == scale and batches == {round(1000 / scale)}
    x = images()
    _, shapes, fgraph = sites_of([x * 2], [x], batch=2 ** 12)
    trial = conversion_trial(fgraph.inputs[0], shapes)
    assert trial.scale == 2 ** 12 * 32 ** 3 * 4 / measured.LARGEST_CONVERSION


def test_a_site_is_not_timed_without_a_choice_or_a_size():
    x, w, rows = images(), images("w"), tt.lscalar()
    dilated = conv2d(x, w, filter_dilation=(2, 2))
    gradient = tt.nnet.abstract_conv.conv2d_grad_wrt_inputs(x, w, (None, 4, rows * rows, 9))
    sites, shapes, _ = sites_of([dilated, gradient], [x, w, rows])
    assert [site_trial(site, shapes) for site in sites] == [None, None]


# ---------------------------------------------------------------------------------------------------------------------
# Plans.


def clock_with(bc01, c01b, conversion):
    """A clock that gives these seconds, whatever is tried."""

    def clock(trials):
        return [dict(bc01=conversion, c01b=conversion) if trial.key["kind"] == "conversion" else dict(bc01=bc01, c01b=c01b)
                for trial in trials]

    return clock


@pytest.mark.parametrize("seconds, pays", [((1.0, 0.5, 0.01), True), ((0.5, 1.0, 0.0), False), ((1.0, 0.9, 0.5), False)])
def test_plans_follow_the_clock(seconds, pays):
    inputs, outputs = training_graph()
    sites, shapes, fgraph = sites_of(outputs, inputs, clock_with(*seconds))
    assert all(site.timed and site.choice.bc01.seconds == seconds[0] and site.choice.c01b.seconds == seconds[1] for site in sites)
    plan = solve(find_region(fgraph, shapes).problem)
    assert plan.pays == pays
    assert plan.seconds <= len(sites) * min(seconds[:2]) + 4 * seconds[2] + 1e-9  # two inputs, two outputs
    gaining = len(sites) if seconds[1] < seconds[0] else 0  # without any, there is no region
    assert plan.unchanged == pytest.approx(gaining * seconds[0])


def test_what_cannot_be_timed_keeps_its_prediction():
    inputs, outputs = training_graph()
    predicted, _, _ = sites_of(outputs, inputs)
    sites, shapes, _ = sites_of(outputs, inputs, lambda trials: [None] * len(trials))
    assert [site.choice.bc01.seconds for site in sites] == [site.choice.bc01.seconds for site in predicted]
    assert not any(site.timed for site in sites)
    assert timed_sites([], shapes) == []


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts on disk.


class Counted:
    """A trial that counts how often it is built."""

    def __init__(self, **key):
        self.builds = 0
        self.trial = Trial(dict(key, kind="a trial"), 1.0, self.build)

    def build(self):
        self.builds += 1
        x = tt.fvector()
        return [Program(name, [x], [x + 1], lambda: [np.ones(3, "float32")]) for name in ("bc01", "c01b")]


def fresh_process(monkeypatch):
    monkeypatch.setattr(verdicts, "_known", {})


def test_a_verdict_is_measured_once_and_found_again(monkeypatch, own_cache):
    one, other = Counted(stride=1), Counted(stride=2)
    first = Clock(Machine())([one.trial, other.trial, one.trial])
    assert (one.builds, other.builds) == (1, 1)
    assert first[0] == first[2] and set(first[0]) == {"bc01", "c01b"} and min(first[0].values()) > 0
    assert len(list(own_cache.iterdir())) == 2  # and nothing besides
    fresh_process(monkeypatch)
    assert Clock(Machine())([one.trial, other.trial, one.trial]) == first
    assert (one.builds, other.builds) == (1, 1)


@pytest.mark.parametrize("change", ["threads", "kernels", "version", "processor"])
def test_another_machine_measures_for_itself(monkeypatch, change):
    counted = Counted()
    Clock(Machine())([counted.trial])
    machine = Machine()
    if change == "threads":
        machine = Machine(threads=7)
    elif change == "kernels":
        monkeypatch.setattr(verdicts.base, "headers_digest", lambda names=None: 1)
    elif change == "version":
        monkeypatch.setattr(layoutopt, "__version__", "99")
    else:
        monkeypatch.setattr(verdicts.calibrate, "cpu", lambda: ("Another CPU", 16))
    Clock(machine)([counted.trial])
    assert counted.builds == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"key": 1}', "\x00", '"seconds"',
                                     dict(bc01=1.0), dict(bc01=1.0, c01b=-1.0), dict(bc01=1.0, c01b="fast"), 3.0])
def test_a_file_that_makes_no_sense_is_said_and_replaced(monkeypatch, own_cache, caplog, content):
    counted = Counted()
    Clock(Machine())([counted.trial])
    path, = own_cache.iterdir()
    good = json.loads(path.read_text())
    path.write_text(content if isinstance(content, str) else json.dumps(dict(good, seconds=content)))
    fresh_process(monkeypatch)
    with caplog.at_level(logging.WARNING, "layoutopt"):
        Clock(Machine())([counted.trial])
    message, = (record.getMessage() for record in caplog.records)
    assert str(path) in message and "\n" not in message
    assert counted.builds == 2 and json.loads(path.read_text())["key"] == good["key"]


def test_a_folder_that_cannot_be_written_is_said_once(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAYOUTOPT_CACHE", str(tmp_path / "file" / "folder"))
    trials = [Counted(stride=stride) for stride in (1, 2)]
    for _ in range(2):
        seconds = Clock(Machine())([counted.trial for counted in trials])
    assert None not in seconds and [counted.builds for counted in trials] == [1, 1]
    message, = (record.getMessage() for record in caplog.records)
    assert "not kept" in message


def _write_many(path, key):
    for number in range(100):
        kept.write(path, dict(key=key, seconds=[number] * 1000), "verdict")


def test_processes_that_write_at_once_leave_whole_files(tmp_path, caplog):
    path, key = str(tmp_path / "verdict.json"), dict(a=1)
    writers = [multiprocessing.get_context("fork").Process(target=_write_many, args=(path, key)) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seconds = kept.read(path, key, "verdict", lambda content: content["seconds"])
        assert seconds is None or seconds == [seconds[0]] * 1000
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert not caplog.records and os.listdir(str(tmp_path)) == ["verdict.json"]


def test_a_trial_that_fails_is_logged_and_not_kept(own_cache, caplog):
    def build():
        raise ValueError("sizes do not fit")

    with caplog.at_level(logging.INFO, "layoutopt"):
        assert Clock(Machine())([Trial(dict(kind="failing"), 1.0, build)]) == [None]
    message, = (record.getMessage() for record in caplog.records)
    assert "sizes do not fit" in message and not own_cache.exists()


# ---------------------------------------------------------------------------------------------------------------------
# The real clock.


def test_programs_run_in_turns_within_their_budget(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(verdicts.time, "perf_counter", lambda: now[0])

    def program(name, seconds):
        def call():
            calls.append(name)
            now[0] += next(seconds)
        return call

    def disturbed(seconds):
        while True:
            yield from (seconds, seconds, seconds, 10 * seconds)

    assert times_in_turns(dict(a=program("a", disturbed(1e-3)), b=program("b", disturbed(1.5e-3))), 1.0) == pytest.approx(
        dict(a=1e-3, b=1.5e-3))
    assert calls[:10] == ["a", "b"] + ["a", "a", "b", "b"] * 2
    assert len(calls) == 2 + 4 * verdicts.MOST_TURNS
    del calls[:]
    times_in_turns(dict(a=program("a", disturbed(1.0)), b=program("b", disturbed(1.0))), 1.0)
    assert calls == ["a", "b"] * (1 + verdicts.FEWEST_TURNS)  # of long calls the first one counts


def test_the_flag_measures_without_disturbing_theano(monkeypatch, own_cache):
    """A whole compilation: nothing nests, test values and profiles stay as the user has them, the report says 'measured'."""
    settings, applied = theano.config.layoutopt, []
    assert settings.cost == "model"
    monkeypatch.setattr(settings, "cost", "measure")
    monkeypatch.setattr(verdicts, "BUDGET", 0.0)
    apply = optimizer.LayoutOptimizer.apply
    monkeypatch.setattr(optimizer.LayoutOptimizer, "apply", lambda self, fgraph: (applied.append(fgraph), apply(self, fgraph)))
    printed = list(theano.compile.profiling._atexit_print_list)
    x, w = images(), theano.shared(np.ones((16, 4, 3, 3), "float32"))
    y = conv2d(x, w, input_shape=(16, 4, 12, 12))
    x.tag.test_value = np.ones((16, 4, 12, 12), "float32")
    with theano.change_flags(compute_test_value="raise", profile=True):
        f = theano.function([x], y, mode=mode(True), profile=False)
        assert theano.config.compute_test_value == "raise"
    assert len(applied) == 1
    assert list(theano.compile.profiling._atexit_print_list) == printed
    np.testing.assert_array_equal(f(x.tag.test_value), np.full((16, 16, 10, 10), 36, "float32"))
    site, = layoutopt.explain(f).record.sites
    assert site.timed and "measured" in str(layoutopt.explain(f))
    files = sorted(own_cache.iterdir())
    assert len(files) == 4  # the site, and conversions of images, filters, outputs
    better = min(site.bc01_seconds, site.c01b_seconds)
    in_c01b = any(isinstance(node.op, FilterActs) for node in f.maker.fgraph.apply_nodes)
    assert in_c01b == (site.layout == "c01b") and layoutopt.explain(f).record.planned_seconds >= better
    theano.function([x], y, mode=mode(True))
    assert sorted(own_cache.iterdir()) == files
