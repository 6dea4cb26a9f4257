"""A benchmarked process: the same LeNet in PyTorch, eager, in its better memory format. Arguments: filters, filters, batch."""
import os
import sys

import numpy as np
import torch
from serve import serve
from torch import nn
from torch_training import training_step

first, second, batch = map(int, sys.argv[1:])
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
rng = np.random.RandomState(0)
images = torch.from_numpy(rng.rand(batch, 1, 28, 28).astype("float32"))
labels = torch.from_numpy(rng.randint(0, 10, batch))


def lenet():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, first, 5), nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(first, second, 5), nn.MaxPool2d(2),
                         nn.Tanh(), nn.Flatten(), nn.Linear(second * 16, 500), nn.Tanh(), nn.Linear(500, 10))


serve(training_step(lenet, images, labels, 0.1))
