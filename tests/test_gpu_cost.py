"""Plans for a GPU, without one: the costs are plain numbers."""
import pytest
import theano
import theano.tensor as tt
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt import device, optimizer
from layoutopt.rewrites.constraints import FORWARD, IMAGE_GRADIENT, MAX_POOL, WEIGHT_GRADIENT
from layoutopt.rewrites.cost import ConvWork, Machine, PoolWork
from layoutopt.rewrites.gpu_cost import RATES, GpuMachine, rates_of


def test_it_has_the_methods_of_the_cpus_machine():
    costs = {name for name in dir(Machine) if name.endswith("_seconds")}
    assert costs <= set(dir(GpuMachine))


@pytest.mark.parametrize("kind, compute, tf32, rates", [
    ("opencl", 0, False, "portable"), ("cuda", 75, True, "portable"), ("cuda", 80, False, "tensor"), ("cuda", 89, True, "tf32"),
    ("cuda", 90, False, "wgmma"), ("cuda", 90, True, "tf32 wgmma"), ("cuda", 100, False, "tensor")])
def test_rates(kind, compute, tf32, rates):
    assert rates_of(kind, compute, tf32) == RATES[rates]


@pytest.mark.parametrize("kind", [FORWARD, IMAGE_GRADIENT, WEIGHT_GRADIENT])
def test_predictions_are_near_what_was_measured(kind):
    """Of docs/performance.md, an H200: VGG 4, and stock Theano's LeNet step of five convolutions, 18.9 ms."""
    machine = GpuMachine(rates=RATES["wgmma"])
    vgg = ConvWork(kind, 128, 256, 512, 256 * 9, 28 * 28, 28 * 28)
    measured = {FORWARD: 2.21e-3, IMAGE_GRADIENT: 2.20e-3, WEIGHT_GRADIENT: 3.24e-3}[kind]
    assert measured / 1.5 < machine.c01b_conv_seconds(vgg) < 1.5 * measured
    lenet = ConvWork(kind, 500, 32, 64, 32 * 25, 8 * 8, 12 * 12)
    assert 2e-3 < machine.stock_conv_seconds(lenet) < 6e-3


def test_bytes_are_what_poolings_and_conversions_cost():
    machine = GpuMachine()
    work = PoolWork(MAX_POOL, 128, 10 ** 6)
    assert machine.c01b_pool_seconds(work) < machine.stock_pool_seconds(work)
    assert machine.conversion_seconds(2e9) == pytest.approx(2 * machine.conversion_seconds(1e9), rel=0.02)


def test_a_graph_is_planned_with_them(monkeypatch):
    """Whatever the GPU, a plan is made; the one here then runs on the CPU."""
    monkeypatch.setattr(optimizer, "find_target", lambda settings: GpuMachine())
    x, w = tt.ftensor4(), theano.shared(tt.ones((8, 3, 3, 3), "float32").eval())
    mode = theano.Mode("py", "fast_run").including("layoutopt").excluding("fusion", "inplace")
    f = theano.function([x], pool_2d(conv2d(x, w), (2, 2), ignore_border=True), mode=mode)
    record = layoutopt.explain(f).record
    assert [site.layout for site in record.sites] == ["c01b", "c01b"]
    assert record.unchanged_seconds > 500e-6, "128 images, two launches each"


def test_flags_become_parameters(monkeypatch):
    for value, split in (("auto", 0), ("None", -1), ("7", 7)):
        monkeypatch.setattr(theano.config.layoutopt, "partial_sum", value)
        assert device.conv_parameters() == dict(tf32=False, split=split, workspace=256 * 2 ** 20)
    for wrong in ("0", "-1", "some"):
        with pytest.raises(ValueError):
            theano.config.layoutopt.partial_sum = wrong
