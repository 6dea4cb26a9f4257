"""A benchmarked process: a network of `examples/`, unedited. Arguments: its name, its sizes as JSON, and how to lay it out.

'as planned' leaves that to the flags; 'all c01b' makes every convolution and pooling look slow in bc01, and conversions cheap.
"""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "examples"))

from networks import NETWORKS  # noqa: E402
from serve import LEARNING_RATE, serve  # noqa: E402
from training import training_step  # noqa: E402

name, sizes, layout = sys.argv[1:]
if layout == "all c01b":
    from layoutopt.rewrites.cost import Machine

    for price, seconds in (("stock_conv_seconds", 1.0), ("stock_pool_seconds", 1.0), ("conversion_seconds", 1e-6)):
        assert hasattr(Machine, price)
        setattr(Machine, price, lambda self, *work, seconds=seconds, **more: seconds)

network = NETWORKS[name](**json.loads(sizes))
step = training_step(network, LEARNING_RATE)
minibatch = network.minibatch(np.random.RandomState(0))
serve(lambda: step(*minibatch)[0])
