"""The model of costs: it grows with the work, it agrees with what was measured, plans follow it, a calibration is kept.

No test looks at a clock: what was measured stands here as who won.
"""
import json
import logging
import math

import pytest
import theano
import theano.tensor as tt
from hypothesis import given, strategies as st
from theano.gof import FunctionGraph
from theano.tensor.nnet import conv2d
from theano.tensor.opt import ShapeFeature

import layoutopt
from layoutopt import calibrate, kept
from layoutopt.__main__ import main
from layoutopt.kernels import FilterActs
from layoutopt.rewrites.constraints import (AVG_POOL, AVG_POOL_GRADIENT, FORWARD, IMAGE_GRADIENT, MAX_POOL,
                                            MAX_POOL_GRADIENT, POOLS, WEIGHT_GRADIENT)
from layoutopt.rewrites.cost import ConvWork, Machine, PoolWork, Speeds, winograd_tiles
from layoutopt.rewrites.layout import BC01, C01B
from layoutopt.rewrites.plan import solve
from layoutopt.rewrites.region import find_region
from layoutopt.rewrites.shapes import Assumed, Shapes

CONVOLUTIONS = (FORWARD, WEIGHT_GRADIENT, IMAGE_GRADIENT)

# ---------------------------------------------------------------------------------------------------------------------
# The model.


def conv_work(kind, batch, channels, side, filters, size, stride=1, pad=0):
    out = (side + 2 * pad - size) // stride + 1
    return ConvWork(kind, batch, channels, filters, channels * size ** 2, out ** 2, side ** 2, stride ** 2,
                    tiles=winograd_tiles(kind, (size, size), (stride, stride), (side, side), (out, out)))


def no_faster(seconds, base, more):
    """Up to rounding."""
    return seconds(base) <= seconds(more) * (1 + 1e-9)


machines = st.tuples(st.integers(1, 64), st.integers(1, 64), st.sampled_from((4, 8, 16))).map(
    lambda drawn: Machine(threads=drawn[0], images_at_once=drawn[1], lanes=drawn[2]))
counts = st.integers(1, 300)


@given(machines, st.sampled_from(CONVOLUTIONS), counts, counts, counts, counts, st.integers(1, 11))
def test_more_work_takes_longer(machine, kind, vectors, channels, side, filters, size):
    side += size
    batch = vectors * machine.lanes
    base = conv_work(kind, batch, channels, side, filters, size)
    for more in (conv_work(kind, 2 * batch, channels, side, filters, size),
                 conv_work(kind, batch, 2 * channels, side, filters, size),
                 conv_work(kind, batch, channels, 2 * side, filters, size),
                 conv_work(kind, batch, channels, side, 2 * filters, size)):
        assert no_faster(machine.stock_conv_seconds, base, more)
        assert no_faster(machine.c01b_conv_seconds, base, more)


@given(machines, st.sampled_from(POOLS), counts, counts)
def test_more_pixels_take_longer(machine, kind, batch, pixels):
    base = PoolWork(kind, batch, pixels)
    for more in (PoolWork(kind, batch + 1, pixels), PoolWork(kind, batch, pixels + 1),
                 PoolWork(kind, batch, pixels, overlap=2.25)):
        assert no_faster(machine.stock_pool_seconds, base, more)
        assert no_faster(machine.c01b_pool_seconds, base, more)
    for to in (C01B, BC01):
        assert no_faster(lambda size: machine.conversion_seconds(size, batch, to), 4 * pixels, 8 * pixels)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("sizes", [(0, 3, 9, 4, 3), (8, 0, 9, 4, 3), (8, 3, 9, 0, 3)],
                         ids=["images", "channels", "filters"])
def test_nothing_to_do_takes_a_call(kind, sizes):
    for seconds in (Machine().stock_conv_seconds, Machine().c01b_conv_seconds):
        assert 0 < seconds(conv_work(kind, *sizes)) < 1e-3


# Who won by more than a quarter on two cores (docs/performance.md): both sides of every choice the model has to make.
MEASURED = [
    # one channel's gradient, and three channels': neither images nor filters fill a vector, and threads have little to share
    (IMAGE_GRADIENT, 8, 1, 28, 32, 5, 1, 0, "stock"), (IMAGE_GRADIENT, 8, 3, 8, 512, 3, 1, 1, "stock"),
    # the same, but row phases to share
    (IMAGE_GRADIENT, 4, 3, 224, 64, 11, 4, 2, "ours"),
    # few products a pixel, whole rows in the lanes
    (FORWARD, 2, 3, 224, 64, 3, 1, 1, "ours"), (FORWARD, 8, 1, 28, 32, 5, 1, 0, "ours"), (FORWARD, 1, 3, 224, 64, 11, 4, 2, "ours"),
    (FORWARD, 128, 1, 28, 32, 5, 1, 0, "ours"), (FORWARD, 16, 20, 12, 50, 5, 1, 0, "ours"),
    # small batches, filters in the lanes; one image is all that CorrMM has to share out
    (FORWARD, 1, 192, 13, 384, 3, 1, 1, "ours"), (IMAGE_GRADIENT, 1, 256, 28, 512, 3, 1, 1, "ours"),
    (FORWARD, 4, 64, 27, 192, 5, 1, 2, "ours"),
    # weight gradients, down to a matrix product of one row
    (WEIGHT_GRADIENT, 1, 20, 12, 50, 5, 1, 0, "ours"), (WEIGHT_GRADIENT, 32, 512, 1, 512, 1, 1, 0, "ours"),
    (WEIGHT_GRADIENT, 500, 16, 64, 3, 3, 1, 1, "ours"), (WEIGHT_GRADIENT, 8, 3, 224, 64, 3, 1, 1, "ours"),
]


@pytest.mark.parametrize("kind, batch, channels, side, filters, size, stride, pad, winner", MEASURED)
def test_the_model_agrees_with_measurements(kind, batch, channels, side, filters, size, stride, pad, winner):
    work = conv_work(kind, batch, channels, side, filters, size, stride, pad)
    machine = Machine(winograd=0)  # the direct kernels were measured
    assert (machine.c01b_conv_seconds(work) < machine.stock_conv_seconds(work)) == (winner == "ours")


@pytest.mark.parametrize("kind, batch, channels, side, filters, winner", [
    (FORWARD, 128, 256, 13, 256, "winograd"), (IMAGE_GRADIENT, 128, 192, 13, 384, "winograd"),
    (FORWARD, 8, 64, 56, 64, "winograd"), (FORWARD, 1, 256, 28, 512, "winograd"),
    (FORWARD, 128, 1, 28, 32, "direct"), (FORWARD, 1, 512, 7, 512, "direct"), (WEIGHT_GRADIENT, 128, 256, 13, 256, "winograd"),
    (WEIGHT_GRADIENT, 8, 256, 13, 256, "winograd"), (WEIGHT_GRADIENT, 128, 1, 28, 32, "direct")])
def test_winograd_where_measurements_show_its_gain(kind, batch, channels, side, filters, winner):
    """As measured: see docs/performance.md."""
    work = conv_work(kind, batch, channels, side, filters, 3, pad=1)
    off, f2, f4 = (Machine(winograd=tile).c01b_conv_seconds(work) for tile in (0, 2, 4))
    assert (f2 < off) == (f4 < off) == (winner == "winograd") and f4 <= f2 <= off
    assert conv_work(kind, batch, channels, side, filters, 4, pad=2).tiles == ()


@pytest.mark.parametrize("kind, batch, channels, side, filters, size, pad, gains", [
    (FORWARD, 500, 32, 12, 64, 5, 0, True), (IMAGE_GRADIENT, 500, 32, 12, 64, 5, 0, True),
    (WEIGHT_GRADIENT, 500, 32, 12, 64, 5, 0, True), (WEIGHT_GRADIENT, 64, 128, 16, 128, 7, 0, False),
    (FORWARD, 128, 64, 27, 192, 5, 2, True), (FORWARD, 64, 128, 16, 128, 7, 0, True), (FORWARD, 1, 128, 16, 128, 7, 0, False)])
def test_winograd_for_larger_filters(kind, batch, channels, side, filters, size, pad, gains):
    """As measured: see docs/performance.md."""
    work = conv_work(kind, batch, channels, side, filters, size, pad=pad)
    off, f2, f4 = (Machine(winograd=tile).c01b_conv_seconds(work) for tile in (0, 2, 4))
    assert (f2 < off) == gains and f4 <= f2


@pytest.mark.parametrize("kind, batch, winner", [(MAX_POOL, 1, "stock"), (MAX_POOL, 4, "ours"),
                                                 (MAX_POOL_GRADIENT, 1, "stock"), (MAX_POOL_GRADIENT, 16, "ours"),
                                                 (AVG_POOL, 1, "stock"), (AVG_POOL, 4, "ours"),
                                                 (AVG_POOL_GRADIENT, 4, "stock"), (AVG_POOL_GRADIENT, 16, "ours")])
def test_small_batches_leave_pooling_vectors_empty(kind, batch, winner):
    work = PoolWork(kind, batch, 20 * 24 * 24)
    assert (Machine().c01b_pool_seconds(work) < Machine().stock_pool_seconds(work)) == (winner == "ours")


def test_this_machine_follows_its_settings(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    machine = Machine.default("avx2")
    assert (machine.product_threads, machine.lanes) == (3, 8)
    assert machine.threads in (1, 3)  # as Theano's openmp flag says
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert Machine.default().product_threads >= 1


# ---------------------------------------------------------------------------------------------------------------------
# Plans.


def planned(machine, batch):
    """The plan for one convolution of images and filters that the program gets and returns in bc01."""
    x, w = tt.tensor4(dtype="float32"), tt.tensor4(dtype="float32")
    out = conv2d(x, w, input_shape=(None, 16, 12, 12), filter_shape=(32, 16, 5, 5))
    fgraph = FunctionGraph([x, w], [out], clone=True, features=[ShapeFeature()])
    return solve(find_region(fgraph, Shapes(fgraph, machine, Assumed(batch=batch))).problem)


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 20, 32, 64, 128, 500])
@pytest.mark.parametrize("threads", [1, 2])
def test_plans_flip_where_the_model_says(batch, threads):
    machine = Machine(threads=threads, images_at_once=threads, product_threads=threads)
    work = conv_work(FORWARD, batch, 16, 12, 32, 5)
    stock, ours = machine.stock_conv_seconds(work), machine.c01b_conv_seconds(work)
    for size, rows, to in ((4 * batch * 16 * 12 ** 2, batch, C01B), (4 * 32 * 16 * 5 ** 2, 32, C01B),
                           (4 * batch * 32 * 8 ** 2, batch, BC01)):
        ours += machine.conversion_seconds(size, rows, to)
    plan = planned(machine, batch)
    assert plan.pays == (ours < stock)
    if plan.layouts:  # else nothing gains from c01b, conversions aside
        assert plan.seconds == pytest.approx(min(ours, stock), abs=1e-11)


def test_both_decisions_occur():
    assert not planned(Machine(), 2).pays
    assert planned(Machine(), 128).pays


# ---------------------------------------------------------------------------------------------------------------------
# The calibration's file.

MEASURED_MACHINE = Machine(threads=3, core_flops=7e10, speeds=Speeds(convolution=0.5))


@pytest.fixture
def default():
    return Machine(threads=3)


def test_a_calibration_comes_back(tmp_path, default):
    path = calibrate.save(MEASURED_MACHINE, str(tmp_path / "new" / "folder"))
    assert calibrate.load(default, str(tmp_path / "new" / "folder")) == MEASURED_MACHINE
    assert [str(file) for file in (tmp_path / "new" / "folder").iterdir()] == [path]  # nothing besides
    calibrate.save(MEASURED_MACHINE._replace(core_flops=8e10), str(tmp_path / "new" / "folder"))
    assert calibrate.load(default, str(tmp_path / "new" / "folder")).core_flops == 8e10


@pytest.mark.parametrize("change", [dict(threads=4), dict(images_at_once=1), dict(product_threads=7), dict(lanes=8)],
                         ids=lambda change: next(iter(change)))
def test_another_machine_has_another_calibration(tmp_path, default, change, caplog):
    calibrate.save(MEASURED_MACHINE, str(tmp_path))
    other = default._replace(**change)
    assert calibrate.load(other, str(tmp_path)) == other
    assert not caplog.records


def test_another_processor_or_version_has_another_calibration(tmp_path, default, monkeypatch):
    calibrate.save(MEASURED_MACHINE, str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(layoutopt, "__version__", "99")
        assert calibrate.load(default, str(tmp_path)) == default
    monkeypatch.setattr(calibrate, "cpu", lambda: ("Another CPU", 16))
    assert calibrate.load(default, str(tmp_path)) == default


def broken(**changes):
    """A file's content with other fields of the machine."""
    machine = dict(MEASURED_MACHINE._asdict(), speeds=MEASURED_MACHINE.speeds._asdict())
    return json.dumps(dict(key=calibrate.key_of(MEASURED_MACHINE), machine=dict(machine, **changes)))


@pytest.mark.parametrize("content", [
    "", "{", "[]", "3", "null", '{"key": 1}', "\x00\xff", broken(core_flops=-1), broken(core_flops="fast"),
    broken(bandwidth=math.nan), broken(speeds=3), broken(speeds={"pool": 0}), broken(unheard=1),
    broken().replace('"threads": 3', '"threads": 9')])
def test_a_file_that_makes_no_sense_is_said_once_and_not_used(tmp_path, default, content, caplog):
    path = calibrate.path_of(calibrate.key_of(default), str(tmp_path))
    with open(path, "w") as file:
        file.write(content)
    with caplog.at_level(logging.WARNING, "layoutopt"):
        assert calibrate.load(default, str(tmp_path)) == default
        assert calibrate.load(default, str(tmp_path)) == default
    message, = (record.getMessage() for record in caplog.records)
    assert path in message and "\n" not in message


def test_a_folder_that_cannot_be_written_is_said(tmp_path, caplog, default):
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "folder")
    assert calibrate.save(MEASURED_MACHINE, folder) is None
    message, = (record.getMessage() for record in caplog.records)
    assert "not kept" in message and "file" in message
    assert calibrate.load(default, folder) == default


def test_where_measurements_are(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYOUTOPT_CACHE", "/chosen")
    assert kept.cache_folder() == "/chosen"
    monkeypatch.delenv("LAYOUTOPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert kept.cache_folder() == "/xdg/layoutopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert kept.cache_folder() == "/home/someone/.cache/layoutopt"


def test_the_optimizer_plans_with_the_calibration(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYOUTOPT_CACHE", str(tmp_path))
    x, w = tt.tensor4(dtype="float32"), tt.tensor4(dtype="float32")
    y = conv2d(x, w, input_shape=(128, 16, 16, 16), filter_shape=(64, 16, 5, 5))
    mode = theano.compile.get_mode("FAST_RUN").including("layoutopt")

    def in_c01b():
        nodes = theano.function([x, w], y, mode=mode).maker.fgraph.apply_nodes
        return any(isinstance(node.op, FilterActs) for node in nodes)

    default = Machine.default()
    calibrate.save(default._replace(speeds=Speeds(stock_conv=1e-3)))
    assert in_c01b()
    calibrate.save(default._replace(speeds=Speeds(convolution=1e-3)))
    assert not in_c01b()


# ---------------------------------------------------------------------------------------------------------------------
# The command.


def test_calibrate_measures_keeps_and_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(calibrate, "LAYERS", ((2, 6, 3, 3, 1, 0),))
    monkeypatch.setattr(calibrate, "POOLS", ((2, 4, 2),))
    assert main(["calibrate", "--batch", "2", "--seconds", "0", "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    path, = tmp_path.iterdir()
    assert "kept in %s" % path in out and "a core's peak" in out and "weight gradient" in out
    assert not err  # the bar is for terminals
    machine = calibrate.load(Machine.default(), str(tmp_path))
    assert machine != Machine.default()
    assert machine.threads == Machine.default().threads


def test_calibrate_fails_where_nothing_can_be_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(calibrate, "measure", lambda machine, *_: machine)
    (tmp_path / "file").write_text("")
    assert main(["calibrate", "--folder", str(tmp_path / "file")]) == 1
    assert "kept" not in capsys.readouterr().out


def test_the_command_line_explains_itself(capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(["--help"])
    assert exit_status.value.code == 0
    assert "calibrate" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_status:
        main(["no-such-command"])
    assert exit_status.value.code == 2
