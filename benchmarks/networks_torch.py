"""AlexNet, VGG-16 and ResNet-50 as in `examples/`, in PyTorch, eager: what `network_torch.py` trains."""
from torch import nn
from torch.nn import functional as F


def scaled(width, *channels):
    counts = [max(1, int(round(width * c))) for c in channels]
    return counts if len(counts) > 1 else counts[0]


def alexnet(size=227, width=1.0, classes=1000):
    c1, c2, c3, c4, c5, hidden = scaled(width, 96, 256, 384, 384, 256, 4096)
    side = (size - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    normalised = dict(size=5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by the size
    return nn.Sequential(
        nn.Conv2d(3, c1, 11, 4), nn.ReLU(), nn.LocalResponseNorm(**normalised), nn.MaxPool2d(3, 2),
        nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.LocalResponseNorm(**normalised), nn.MaxPool2d(3, 2),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(), nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(c5 * side * side, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, classes))


def vgg16(size=224, width=1.0, classes=1000):
    layers, channels = [], 3
    for filters, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        filters = scaled(width, filters)
        for _ in range(n):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    hidden = scaled(width, 4096)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (size // 32) ** 2, hidden), nn.ReLU(),
                         nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def normalised(channels, filters, side, stride=1):
    return nn.Sequential(nn.Conv2d(channels, filters, side, stride, padding=side // 2, bias=False), nn.BatchNorm2d(filters))


class Bottleneck(nn.Module):
    """relu(x + f(x)) with f of three convolutions, the middle one narrow."""

    def __init__(self, channels, narrow, stride):
        super().__init__()
        self.body = nn.Sequential(normalised(channels, narrow, 1, stride), nn.ReLU(), normalised(narrow, narrow, 3), nn.ReLU(),
                                  normalised(narrow, 4 * narrow, 1))
        plain = stride == 1 and channels == 4 * narrow
        self.shortcut = nn.Identity() if plain else normalised(channels, 4 * narrow, 1, stride)

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.body(x))


def resnet50(size=224, width=1.0, classes=1000, blocks=(3, 4, 6, 3)):
    channels = scaled(width, 64)
    layers = [normalised(3, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, n in enumerate(blocks):
        narrow = scaled(width, 64 * 2 ** stage)
        for i in range(n):
            layers.append(Bottleneck(channels, narrow, 2 if stage > 0 and i == 0 else 1))
            channels = 4 * narrow
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


NETWORKS = {build.__name__: build for build in (alexnet, vgg16, resnet50)}
