"""Probabilistic max-pooling and its gradient in c01b order in plain numpy: the definition for the kernels.

Of the pixels of a window at most one is on, and which one is a draw from a softmax over all pixels and "none", whose energy is
-t, where t is what comes from above. h is the probability of each pixel to be on, p that of any. Source: Lee, Grosse,
Ranganath, Ng: Convolutional deep belief networks (2009), section 3.6. Sizes are explicit and unchecked, dtypes are the operands'.

The arguments that all functions share:

ds, start : (int, int), size of a window, which is the distance between windows, too, and first pixel of the first window
    (negative where there is a pad)
"""
import numpy as np

from .pool import _windows


def prob_max_pool(z, top_down, ds, start):
    """(p, h): arrays like `top_down` and like `z`. Pixels of no window are 0 in h.

    Parameters
    ----------
    z : array (channels, rows, columns, batch)
    top_down : array (channels, output rows, output columns, batch)
    """
    p, h = np.empty_like(top_down), np.zeros_like(z)
    for (i, j), pixels in _windows(top_down.shape[1:3], z.shape[1:3], ds, ds, start):
        none = -top_down[:, i, j]
        largest = np.maximum.reduce([none] + [z[:, row, column] for row, column in pixels])
        on = [np.exp(z[:, row, column] - largest) for row, column in pixels]
        any_on = sum(on)
        total = any_on + np.exp(none - largest)
        p[:, i, j] = any_on / total
        for (row, column), value in zip(pixels, on):
            h[:, row, column] = value / total
    return p, h


def prob_max_pool_grad(p, h, gp, gh, ds, start):
    """(gz, gt): arrays like `h` and like `p`, the gradients for z and for the values from above.

    Derivatives of a softmax: with s = sum of h gh over a window, gz = h (gh - s + (1 - p) gp) and gt = (1 - p) (s + p gp).

    Parameters
    ----------
    p, h : what `prob_max_pool` returned
    gp, gh : arrays like them, the gradients on them
    """
    gz, gt = np.zeros_like(h), np.empty_like(p)
    for (i, j), pixels in _windows(p.shape[1:3], h.shape[1:3], ds, ds, start):
        inside = sum(h[:, row, column] * gh[:, row, column] for row, column in pixels)
        off = 1 - p[:, i, j]
        for row, column in pixels:
            gz[:, row, column] = h[:, row, column] * (gh[:, row, column] - (inside - off * gp[:, i, j]))
        gt[:, i, j] = off * (inside + p[:, i, j] * gp[:, i, j])
    return gz, gt
