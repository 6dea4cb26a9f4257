"""A benchmarked process: one convolution or pooling of PyTorch (cuDNN) on the GPU at a time; see `gpu.py`.

Argument: 'float32' or 'tf32'. cuDNN picks its algorithm by trying all, and the better memory format counts.
"""
import sys

import numpy as np
import torch
from conv_torch import conv, pool
from serve import serve

CALLS = 10  # between two events, as in `gpu_events`
torch.set_grad_enabled(False)
torch.set_default_device("cuda")
torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = sys.argv[1] == "tf32"


def timed(step, steps):
    """Seconds of each of some steps, `CALLS` calls of `step` taken as one."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    seconds = []
    for _ in range(steps):
        events[0].record()
        for _ in range(CALLS):
            step()
        events[1].record()
        events[1].synchronize()
        seconds.append(1e-3 * events[0].elapsed_time(events[1]) / CALLS)
    return dict(seconds=seconds, loss=float(np.median(seconds)))


def prepare(family, direction, layer):
    make = dict(conv=conv, pool=pool)[family]
    calls = [make(direction, layer, form) for form in (torch.contiguous_format, torch.channels_last)]
    return min(calls, key=lambda call: min(timed(call, 4)["seconds"][1:]))


serve(prepare=prepare, timed=timed)
