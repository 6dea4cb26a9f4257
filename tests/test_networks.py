"""The networks of `examples/`, unedited and small, with and without the flag: the same losses, no needless conversion.

So that the small size does not decide, convolutions and poolings are made to look slow in bc01 and conversions all
equal: then every site moves to c01b, and the cut is the least number of conversions.
"""
import os
import sys

import numpy as np
import pytest

import layoutopt
from layoutopt.kernels import ToBC01, ToC01B
from layoutopt.rewrites.cost import Machine

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir)
sys.path[:0] = [os.path.join(ROOT, "examples"), os.path.join(ROOT, "benchmarks")]

from cheap_mode import few_compilations, mode  # noqa: E402, F401  (a fixture)
from conversions import activation_conversions  # noqa: E402
from demo import largest_difference  # noqa: E402
from networks import NETWORKS  # noqa: E402
from training import train, training_step  # noqa: E402

BATCH, STEPS = 16, 3

# What makes each network small.
TINY = {
    "alexnet": dict(size=67, classes=10),
    "vgg16": dict(size=32, classes=10),
    "inception": dict(size=32, classes=10, most_blocks=1),
    "resnet50": dict(size=32, classes=10, blocks=(1, 1, 1, 1)),
    "dcgan": dict(size=16),
    "fcn": dict(size=32, classes=5),
    "allconv": dict(size=16),
}
# How many activations are converted in each training step, and why it is more than the one input of images.
CONVERSIONS = {
    "alexnet": 1,
    "vgg16": 1,
    "inception": 1,
    "resnet50": 1,
    "dcgan": 1,
    "fcn": 2,  # the labels are an image, too
    # Images with their mask, and two masks, which Theano's generator lays out.
    "allconv": 3,
}

# What else becomes ops of ours, all in c01b.
RECOGNISED = {"alexnet": ["CrossMapNorm", "CrossMapNorm", "CrossMapNormUndo", "CrossMapNormUndo"]}


@pytest.fixture(autouse=True)
def conversions_count(monkeypatch):
    for name, seconds in (("stock_conv_seconds", 1.0), ("stock_pool_seconds", 1.0), ("conversion_seconds", 1e-3)):
        assert hasattr(Machine, name)
        monkeypatch.setattr(Machine, name, lambda self, *work, seconds=seconds: seconds)


@pytest.mark.parametrize("name", TINY)
def test_same_losses_and_no_needless_conversion(name):
    losses = []
    for flagged in (False, True):
        network = NETWORKS[name](batch=BATCH, width=1 / 16, **TINY[name])
        step = training_step(network, 0.05, mode(flagged))
        losses.append(train(network, step, STEPS))
    stock, flagged = losses
    for objective in range(stock.shape[1]):
        terms = BATCH * TINY[name]["size"] ** 2  # of the longest sum, a weight gradient's
        difference, allowed, within = largest_difference(stock[:, objective], flagged[:, objective], terms)
        assert within, (difference, allowed, losses)

    record = layoutopt.explain(step).record
    nodes = step.maker.fgraph.apply_nodes
    assert [found for found in record.sites + list(record.recognised) if found.layout != "c01b"] == []
    assert sorted(found.op for found in record.recognised) == RECOGNISED.get(name, [])
    assert len(record.conversions) == sum(isinstance(node.op, (ToBC01, ToC01B)) for node in nodes)
    activations = activation_conversions(step.maker.fgraph)
    assert len(activations) == CONVERSIONS[name], activations
    assert record.planned_seconds == record.bound_seconds
    assert np.isfinite(stock).all()
