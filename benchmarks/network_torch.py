"""A benchmarked process: a training step in PyTorch, in its better memory format. Arguments: a network of `networks_torch.py`,
its sizes as JSON."""
import json
import os
import sys

import torch
from conv_torch import quickest
from networks_torch import NETWORKS
from serve import serve
from torch import nn

name, sizes = sys.argv[1], json.loads(sys.argv[2])
batch, size = sizes.pop("batch"), sizes.setdefault("size", 227 if name == "alexnet" else 224)
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))


def trainer(memory_format):
    """A training step with weights and images in this memory format."""
    model = NETWORKS[name](**sizes).to(memory_format=memory_format)
    x = images.contiguous(memory_format=memory_format)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


serve(quickest([trainer(torch.contiguous_format), trainer(torch.channels_last)]))
