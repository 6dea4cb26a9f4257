"""A benchmarked process: `examples/lenet.py`, unedited, on random images. Arguments: filters, filters, batch."""
import os
import sys

import numpy as np
import theano

if "layoutopt" in theano.config.optimizer_including:
    import layoutopt  # noqa: F401  (by itself this happens where layoutopt is installed, not where it is only unpacked)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "examples"))

from lenet import compile_functions  # noqa: E402
from serve import serve  # noqa: E402

first, second, batch = map(int, sys.argv[1:])
rng = np.random.RandomState(0)
data = rng.rand(2 * batch, 28 * 28).astype("float32"), rng.randint(0, 10, 2 * batch)
train_step, _ = compile_functions(data, data, batch, (first, second), 0.1)
serve(lambda: train_step(0))
