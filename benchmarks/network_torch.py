"""A benchmarked process: a training step in PyTorch, in its better memory format. Arguments: a network of `networks_torch.py`,
its sizes as JSON."""
import json
import os
import sys

import torch
from networks_torch import NETWORKS
from serve import LEARNING_RATE, serve
from torch_training import training_step

name, sizes = sys.argv[1], json.loads(sys.argv[2])
batch, size = sizes.pop("batch"), sizes.setdefault("size", 227 if name == "alexnet" else 224)
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))


def network():
    torch.manual_seed(0)
    return NETWORKS[name](**sizes)


serve(training_step(network, images, labels, LEARNING_RATE))
