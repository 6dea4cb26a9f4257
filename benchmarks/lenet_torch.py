"""A benchmarked process: the same LeNet in PyTorch, eager, in its better memory format. Arguments: filters, filters, batch."""
import os
import sys
import time

import numpy as np
import torch
from torch import nn

from serve import serve

first, second, batch = map(int, sys.argv[1:])
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
rng = np.random.RandomState(0)
images = torch.from_numpy(rng.rand(batch, 1, 28, 28).astype("float32"))
labels = torch.from_numpy(rng.randint(0, 10, batch))


def trainer(memory_format):
    """A training step with weights and images in this memory format."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, first, 5), nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(first, second, 5), nn.MaxPool2d(2),
                          nn.Tanh(), nn.Flatten(), nn.Linear(second * 16, 500), nn.Tanh(), nn.Linear(500, 10))
    model = model.to(memory_format=memory_format)
    x = images.contiguous(memory_format=memory_format)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def quickest(steps):
    """Of several step functions the one whose third call is fastest."""
    def third(step):
        step(), step()
        started = time.perf_counter()
        step()
        return time.perf_counter() - started
    return min(steps, key=third)


serve(quickest([trainer(torch.contiguous_format), trainer(torch.channels_last)]))
