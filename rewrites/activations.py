"""Elementwise tanh and sigmoid by our vectorised ops; and those in place, where Theano allows it."""
from theano.compile import optdb
from theano.gof import TopoOptimizer, local_optimizer
from theano.gof.opt import copy_stack_trace
from theano.scalar.basic import Tanh as ScalarTanh
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet.sigm import ScalarSigmoid

from layoutopt.kernels.activation import Sigmoid, Tanh, sigmoid, tanh

# Exact classes: UltraFastScalarSigmoid and the like are other functions.
_OURS = {ScalarTanh: tanh, ScalarSigmoid: sigmoid}

# Beside Theano's own in-place elementwise ops; the destroy handler comes at 49.5.
INPLACE_POSITION = 75


def vectorise(fgraph):
    """Replace every elementwise float32 tanh and sigmoid of `fgraph`, of at least one axis, by the ops of this package.

    To be called before Theano fuses elementwise ops, which calls libm per element again. The derivatives that Theano
    built from the same values keep using them.

    Returns
    -------
    int
        How many nodes were replaced.
    """
    pairs = []
    for node in fgraph.toposort():
        op = _ours(node)
        if op is None:
            continue
        old, new = node.outputs[0], op(node.inputs[0])
        copy_stack_trace(old, new)
        new.name = old.name
        pairs.append((old, new))
    fgraph.replace_all_validate(pairs, reason="layoutopt: vectorised activation")
    return len(pairs)


def _ours(node):
    """Our op that does what an elementwise node does, or None."""
    op = node.op
    if type(op) is not Elemwise or op.inplace_pattern or len(node.inputs) != 1 or node.outputs[0].ndim == 0:
        return None
    if node.inputs[0].dtype != "float32" or node.outputs[0].dtype != "float32":
        return None
    return _OURS.get(type(op.scalar_op))


@local_optimizer([Tanh, Sigmoid], inplace=True)
def local_inplace_activation(node):
    """Tanh and Sigmoid overwrite their input; the destroy handler takes back what is not safe."""
    if not isinstance(node.op, (Tanh, Sigmoid)) or node.op.inplace:
        return False
    new = type(node.op)(inplace=True, openmp=node.op.openmp)(node.inputs[0])
    copy_stack_trace(node.outputs[0], new)
    return [new]


def register():
    """Put the in-place stage into Theano's database; a second call does nothing."""
    if "layoutopt_inplace_activations" not in optdb.__position__:
        optdb.register("layoutopt_inplace_activations",
                       TopoOptimizer(local_inplace_activation, failure_callback=TopoOptimizer.warn_inplace),
                       INPLACE_POSITION, "fast_run", "inplace")


register()
