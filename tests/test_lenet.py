"""The main job: the LeNet of `examples/`, unedited, trained with and without the flag."""
import gzip
import os
import pickle
import sys

import numpy as np
import pytest
import theano

import layoutopt
from layoutopt.kernels import FilterActs, ImageActs, MaxPool, MaxPoolGrad, ToBC01, ToC01B, WeightActs

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "examples"))

import demo  # noqa: E402
import digits  # noqa: E402
import lenet  # noqa: E402

BATCH, STEPS, NKERNS = 100, 12, (20, 50)
WINDOWS = BATCH * NKERNS[1] * 4 * 4  # of the second pooling, whose maxima rounding may decide


@pytest.fixture(scope="module")
def data():
    """Ten random pictures under noise: no two pixels are equal, so hardly any maximum hangs on rounding."""
    rng = np.random.RandomState(0)
    pictures = rng.rand(10, 28 * 28)
    labels = rng.randint(0, 10, 4 * BATCH)
    images = (pictures[labels] + 0.5 * rng.rand(4 * BATCH, 28 * 28)).astype("float32")
    return (images, labels), (images[:BATCH], labels[:BATCH])


@pytest.fixture(scope="module")
def trained(data):
    """(losses, train step, test function) without and with the flag."""
    runs = []
    for flagged in (False, True):
        mode = theano.compile.mode.get_default_mode()
        mode = mode.including("layoutopt") if flagged else mode.excluding("layoutopt")
        old, theano.config.mode = theano.config.mode, mode
        try:
            step, evaluate = lenet.compile_functions(*data, BATCH, NKERNS, 0.1)
        finally:
            theano.config.mode = old
        losses = [float(step(i % 4)) for i in range(STEPS)]
        runs.append((losses, step, evaluate))
    return runs


def test_losses_are_the_same_step_by_step(trained):
    """All the way; and where a rounding decides which of two pixels is a window's maximum, the way may fork."""
    (stock, _, _), (flagged, _, _) = trained
    difference, allowed, within = demo.largest_difference(stock, flagged, BATCH * 24 * 24, WINDOWS)
    assert within, (difference, allowed, stock, flagged)
    assert min(stock) < stock[0] / 2, "training must get somewhere, or equal losses prove little"


def parameters(step):
    """The shared variables of a training step that it updates, in the graph's order, which is the same in both programs."""
    return [variable for variable in step.get_shared() if variable.name not in ("images", "labels")]


def test_each_step_from_the_same_parameters(trained):
    """Both begin every step with the same numbers, so only that step's roundings lie between them. Those of a gradient's
    longest sum explain most steps; in the others a window's maximum tipped, and an image's share of a gradient is another. Of
    the BATCH shares, which are of random sign, that is one in the square root; a twentieth of it was met."""
    (_, stock_step, _), (_, flagged_step, _) = trained
    stock, flagged = parameters(stock_step), parameters(flagged_step)
    assert [variable.name for variable in stock] == [variable.name for variable in flagged] and len(stock) == 8
    off = np.zeros((STEPS, len(stock)))
    for i in range(STEPS):
        before = [variable.get_value() for variable in stock]
        for variable, value in zip(flagged, before):
            variable.set_value(value)
        np.testing.assert_allclose(flagged_step(i % 4), stock_step(i % 4), rtol=2.0 ** -24 * np.sqrt(800) * 2)  # hidden's sums
        for j, value in enumerate(before):
            theirs, ours = stock[j].get_value() - value, flagged[j].get_value() - value
            off[i, j] = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert (np.median(off, axis=0) <= 2.0 ** -24 * np.sqrt(BATCH * 24 * 24)).all(), off
    assert (off <= BATCH ** -0.5).all(), off.max(axis=0)


def test_error_is_the_same(trained):
    (_, _, stock), (_, _, flagged) = trained
    assert float(stock(0)) == pytest.approx(float(flagged(0)), abs=1.0 / BATCH)  # one digit on the edge may tip


def test_training_graph_keeps_the_conversions_that_the_cut_proves_necessary(trained):
    """The input, and in the first call both filters, which are stored in c01b from then on: no activation changes its layout."""
    step = trained[1][1]
    record = layoutopt.explain(step).record
    nodes = step.maker.fgraph.toposort()
    assert record.applied
    assert record.planned_seconds == record.bound_seconds < record.unchanged_seconds
    assert sum(isinstance(node.op, (ToC01B, ToBC01)) for node in nodes) == len(record.conversions) == 3
    counts = {op: sum(isinstance(node.op, op) for node in nodes)
              for op in (FilterActs, ImageActs, WeightActs, MaxPool, MaxPoolGrad)}
    assert counts == {FilterActs: 2, ImageActs: 1, WeightActs: 2, MaxPool: 2, MaxPoolGrad: 2}
    sizes = sorted(conversion.bytes for conversion in record.conversions)
    assert sizes == sorted([4 * BATCH * 28 * 28, 4 * 20 * 25, 4 * 50 * 20 * 25])


def test_report_names_every_site_and_its_place(trained):
    text = str(layoutopt.explain(trained[1][1]))
    assert "9 of 9 convolutions and poolings in c01b" in text
    assert "lenet.py:" in text
    assert "100 x 20 x 12 x 12 images, 50 filters 5 x 5, pad 0, stride 1" in text
    assert "conversions: 0 before, 3 after" in text


def test_digits_from_the_tutorials_pickle(tmp_path):
    """mnist.pkl.gz: three pairs of images and labels, written by Python 2."""
    sets = [(np.full((n, 4), value, "float32"), np.full(n, value)) for n, value in ((3, 1), (2, 2), (1, 3))]
    with gzip.open(str(tmp_path / "mnist.pkl.gz"), "wb") as target:
        pickle.dump(sets, target, protocol=2)
    images, labels = digits.read_pickle(str(tmp_path / "mnist.pkl.gz"))
    np.testing.assert_array_equal(labels, [1, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(images, np.repeat(labels[:, None], 4, axis=1).astype("float32"))


def test_digits_from_idx_files(tmp_path):
    """MNIST's format, as it is distributed; and what is wrong with a damaged file."""
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    labels = np.array([7, 8, 9], np.uint8)
    for name, values in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
        (tmp_path / name).write_bytes(header + values.tobytes())
    read_images, read_labels = digits.read_idx_folder(str(tmp_path))
    np.testing.assert_array_equal(read_images, images.reshape(3, 4) / np.float32(255))
    np.testing.assert_array_equal(read_labels, labels)

    damaged = tmp_path / "t10k-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ValueError, match="announces 3 x 2 x 2 values and holds 11"):
        digits.read_idx(str(damaged))
    damaged.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not an idx file"):
        digits.read_idx(str(damaged))
    with pytest.raises(ValueError, match="too few"):
        digits.load_digits(batch=5000)
    with pytest.raises(FileNotFoundError):
        digits.read_idx_folder(str(tmp_path / "nowhere"))
