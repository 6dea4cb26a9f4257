"""Training a network by stochastic gradient descent, and random minibatches to do it with."""
from typing import Callable, NamedTuple

import numpy as np
import theano
import theano.tensor as T

from layers import floats


class Objective(NamedTuple):
    """A loss (a scalar variable) and the parameters that are to make it small."""

    loss: object
    parameters: list


class Network(NamedTuple):
    """A network that is ready to be trained.

    inputs : variables of one minibatch.
    objectives : list of `Objective`; one, or two of networks that play against each other.
    updates : list of (shared variable, new value), made in every training step besides the parameters'.
    minibatch : called with a RandomState, draws values for `inputs`.
    """

    inputs: list
    objectives: list
    updates: list
    minibatch: Callable


def classifier(images, scores, params, shape, classes):
    """The `Network` that learns to tell classes apart by their `scores` (batch, classes).

    Parameters
    ----------
    images : variable of `shape` (batch, channels, rows, columns)
    """
    labels = T.ivector("labels")
    loss = T.nnet.categorical_crossentropy(T.nnet.softmax(scores), labels).mean()

    def minibatch(rng):
        return [normal(rng, shape), rng.randint(0, classes, shape[0]).astype("int32")]

    return Network([images, labels], [Objective(loss, params.all)], params.updates, minibatch)


def normal(rng, shape):
    return floats(rng.standard_normal(shape))


def training_step(network, learning_rate=0.01, mode=None):
    """The compiled function of one step of gradient descent: takes a minibatch, returns the list of losses."""
    updates = list(network.updates)
    for loss, parameters in network.objectives:
        gradients = T.grad(loss, parameters)
        updates += [(p, p - floats(learning_rate) * g) for p, g in zip(parameters, gradients)]
    losses = [objective.loss for objective in network.objectives]
    return theano.function(network.inputs, losses, updates=updates, mode=mode)


def train(network, step, steps, seed=0):
    """Makes `steps` steps on one random minibatch after the other; returns the losses, (steps, objectives)."""
    rng = np.random.RandomState(seed)
    return np.array([step(*network.minibatch(rng)) for _ in range(steps)])
