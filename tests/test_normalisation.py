"""Local response normalisation as people write it becomes one op, and its gradient another: when, when not, with which numbers.

What is recognised is seen in the graph as the optimizer meets it, which needs no compilation.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import Optimizer
from theano.tensor.elemwise import Elemwise
from theano.tensor.subtensor import IncSubtensor, Subtensor

from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.normalisation import name_normalisations
from layoutopt.rewrites.shapes import Shapes

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from normalisations import AXES, DIVISIONS, FORMS, term_by_term
from test_padding import early

N, K, ALPHA, BETA = 5, 2.0, 0.02, 0.75
X, W = (T.TensorType("float32", (False,) * 4)(name) for name in "xw")
SHAPE = (3, 7, 4, 5)
WRITTEN_OUT = (IncSubtensor, Subtensor, T.Alloc, T.Join, T.Split)


class Naming(Optimizer):
    """The stage alone. `edits` are those of the last graph."""

    def apply(self, fgraph):
        self.edits = Edits(fgraph)
        name_normalisations(self.edits, Shapes(fgraph))


def named(*outputs):
    """A graph after the stage, and the edits."""
    fgraph, stage = early(*outputs), Naming()
    stage.optimize(fgraph)
    return fgraph, stage.edits


def ops(fgraph, *classes):
    return [node.op for node in fgraph.apply_nodes if isinstance(node.op, classes)]


def is_left(fgraph):
    """What is left of the normalisation as it was written."""
    powers = [op for op in ops(fgraph, Elemwise) if type(op.scalar_op).__name__ in ("Pow", "Sqrt", "Inv", "Log")]
    return [op for op in ops(fgraph, *WRITTEN_OUT)] + powers


def normalised(x=X, form=term_by_term, n=N, k=K, alpha=ALPHA, beta=BETA, **kwargs):
    return form(x, n, k, alpha, beta, **kwargs)


def with_gradient(y, x=X):
    return [y, T.grad((y * W).sum(), x)]


def assert_parameters(op, n=N, k=K, alpha=ALPHA, beta=BETA, axis=1):
    assert (op.size, op.axis, op.blocked) == (n, axis, False)
    np.testing.assert_allclose([op.min_div, op.add_scale, op.pow_scale], [k, alpha, beta], rtol=4 * 2.0 ** -24)


# ---------------------------------------------------------------------------------------------------------------------
# What is recognised.


@pytest.mark.parametrize("form", FORMS)
def test_every_form_forward_and_backward(form):
    fgraph, edits = named(*with_gradient(normalised(form=form)))
    for op_class in (CrossMapNorm, CrossMapNormUndo):
        op, = ops(fgraph, op_class)
        assert_parameters(op, axis=AXES.get(form, 1))
        assert any(type(node.op) is op_class and "normalisation across 5 channels" in note for node, note in edits.notes.items())
    assert is_left(fgraph) == []


@pytest.mark.parametrize("form", FORMS)
def test_undoing_leaves_the_graph_as_it_was(form):
    fgraph, edits = named(*with_gradient(normalised(form=form)))
    edits.undo()
    assert edits.notes == {} and ops(fgraph, CrossMapNorm, CrossMapNormUndo) == []
    assert len(fgraph.apply_nodes) == len(early(*with_gradient(normalised(form=form))).apply_nodes)


@pytest.mark.parametrize("divide, beta", DIVISIONS.values(), ids=DIVISIONS)
def test_every_way_to_divide(divide, beta):
    fgraph, _ = named(*with_gradient(normalised(divide=divide)))
    for op_class in (CrossMapNorm, CrossMapNormUndo):
        op, = ops(fgraph, op_class)
        assert_parameters(op, beta=beta)
    assert is_left(fgraph) == []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 9])
def test_windows(n):
    """Even ones, too, whose gradient has the other half. A window of one channel needs no zeros, and is left as it is."""
    fgraph, _ = named(*with_gradient(normalised(n=n)))
    found = ops(fgraph, CrossMapNorm, CrossMapNormUndo)
    assert len(found) == (2 if n > 1 else 0)
    for op in found:
        assert_parameters(op, n=n)
    assert is_left(fgraph) == [] or n == 1


def test_sizes_that_are_numbers():
    fgraph, _ = named(*with_gradient(normalised(X.reshape(SHAPE))))
    assert len(ops(fgraph, CrossMapNorm, CrossMapNormUndo)) == 2 and is_left(fgraph) == []
