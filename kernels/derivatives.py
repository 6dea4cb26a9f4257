"""Gradients of an op by way of what it is in Theano's ops, for derivatives that have no kernel."""
from theano import clone
from theano.gradient import DisconnectedType, grad


def is_known(gradient):
    """Whether a gradient is one, and not Theano's word that nothing leads there."""
    return not isinstance(gradient.type, DisconnectedType)


def gradients_by(formula, inputs, output_gradients):
    """What an op's ``L_op`` returns, if the op is ``formula(*inputs)`` in Theano's ops.

    They are taken by variables of their own, for one operand may have been computed from another: by the operands themselves the
    path from one through the other would count here, and once more where Theano adds up what flows to the first.

    Parameters
    ----------
    formula : callable
        From as many variables as there are operands to the list of the op's outputs.
    inputs, output_gradients : lists of variables
        As ``L_op`` gets them.

    Returns
    -------
    list of variables
        One for each operand; disconnected where no output depends on it.
    """
    own = [x.type() for x in inputs]
    # As of a product: gradients that Theano is told for two values, one of which is computed from the other, do not add up.
    known = [(x, g) for x, g in zip(formula(*own), output_gradients) if is_known(g)]
    gradients = grad(sum((x * g).sum() for x, g in known), own, consider_constant=[g for _, g in known],
                     disconnected_inputs="ignore", return_disconnected="Disconnected")
    return [clone(g, dict(zip(own, inputs))) if is_known(g) else g for g in gradients]
