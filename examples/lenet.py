"""LeNet on handwritten digits, as the deep learning tutorials write it: ordinary bc01 Theano.

    python examples/lenet.py                      train on scikit-learn's digits
    python examples/lenet.py --data DIRECTORY     train on MNIST: a folder of idx files, or mnist.pkl.gz

Two layers of convolution, max-pooling and tanh, a hidden layer and a softmax (LeCun et al., Gradient-based learning
applied to document recognition, 1998), trained by plain stochastic gradient descent.
"""
import argparse
import json
import time

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d
from tqdm import tqdm

from digits import load_digits


def shared(value, name):
    return theano.shared(np.asarray(value, dtype="float32"), name=name, borrow=True)


def uniform(rng, shape, fan_in, fan_out):
    bound = np.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, size=shape)


def conv_layer(rng, images, image_shape, filters, side=5):
    """Convolution, 2 x 2 max-pooling, bias and tanh; returns the activations, their shape and the parameters."""
    batch, channels, height, width = image_shape
    fan_in = channels * side * side
    w = shared(uniform(rng, (filters, channels, side, side), fan_in, filters * side * side // 4), "conv_w")
    b = shared(np.zeros(filters), "conv_b")
    convolved = conv2d(images, w, input_shape=image_shape, filter_shape=(filters, channels, side, side))
    pooled = pool_2d(convolved, ws=(2, 2), ignore_border=True)
    shape = (batch, filters, (height - side + 1) // 2, (width - side + 1) // 2)
    return T.tanh(pooled + b.dimshuffle("x", 0, "x", "x")), shape, [w, b]


def dense_layer(rng, values, n_in, n_out, name):
    w = shared(uniform(rng, (n_in, n_out), n_in, n_out), name + "_w")
    b = shared(np.zeros(n_out), name + "_b")
    return T.dot(values, w) + b, [w, b]


def lenet(x, batch, side, nkerns, hidden=500, classes=10, seed=23455):
    """Class probabilities (batch, classes) of the images in matrix `x` (batch, side * side), and all parameters."""
    rng = np.random.RandomState(seed)
    images = x.reshape((batch, 1, side, side))
    first, shape, params = conv_layer(rng, images, (batch, 1, side, side), nkerns[0])
    second, shape, more = conv_layer(rng, first, shape, nkerns[1])
    params = params + more
    flat, more = dense_layer(rng, second.flatten(2), int(np.prod(shape[1:])), hidden, "hidden")
    params = params + more
    scores, more = dense_layer(rng, T.tanh(flat), hidden, classes, "softmax")
    return T.nnet.softmax(scores), params + more


def compile_functions(train, test, batch, nkerns, learning_rate):
    """Theano functions of a minibatch's index: a training step (loss) and the test error."""
    index = T.lscalar("index")
    x, y = T.matrix("x"), T.ivector("y")
    side = int(round(train[0].shape[1] ** 0.5))
    probabilities, params = lenet(x, batch, side, nkerns)
    loss = T.mean(T.nnet.categorical_crossentropy(probabilities, y))
    error = T.mean(T.neq(T.argmax(probabilities, axis=1), y))
    updates = [(p, p - np.float32(learning_rate) * g) for p, g in zip(params, T.grad(loss, params))]

    def minibatch(images, labels):
        rows = slice(index * batch, (index + 1) * batch)
        return {x: shared(images, "images")[rows], y: T.cast(shared(labels, "labels"), "int32")[rows]}

    step = theano.function([index], loss, updates=updates, givens=minibatch(*train))
    evaluate = theano.function([index], error, givens=minibatch(*test))
    return step, evaluate


def train_lenet(train, test, batch, nkerns, learning_rate, steps):
    """Trains for `steps` minibatches; returns the losses, the seconds of every step and the final test error."""
    step, evaluate = compile_functions(train, test, batch, nkerns, learning_rate)
    n_batches = len(train[0]) // batch
    losses, seconds = [], []
    progress = tqdm(range(steps), unit="step", disable=None)
    for i in progress:
        started = time.perf_counter()
        losses.append(float(step(i % n_batches)))
        seconds.append(time.perf_counter() - started)
        progress.set_postfix(loss="%.4f" % losses[-1])
    error = float(np.mean([evaluate(i) for i in range(len(test[0]) // batch)]))
    return losses, seconds, error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="MNIST: a folder of idx files, or mnist.pkl.gz; default: scikit-learn's digits")
    parser.add_argument("--nkerns", type=int, nargs=2, default=(32, 64), help="filters of the two layers")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--json", help="write losses, seconds and the error to this file")
    args = parser.parse_args()

    train, test = load_digits(args.data, args.batch)
    losses, seconds, error = train_lenet(train, test, args.batch, args.nkerns, args.learning_rate, args.steps)
    print("loss %.5f after %d steps, test error %.2f%%, %.1f ms a step"
          % (losses[-1], args.steps, 100 * error, 1000 * np.median(seconds)))
    if args.json:
        with open(args.json, "w") as target:
            json.dump({"losses": losses, "seconds": seconds, "error": error}, target)


if __name__ == "__main__":
    main()
