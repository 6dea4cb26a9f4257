"""Convolution in c01b order in plain numpy: the definition that every kernel is measured against.

Sizes are explicit and unchecked here; which sizes fit together is the ops' business (``kernels/conv.py``). The dtype
is the operands': float64 gives a reference for a float32 kernel, and finite differences. Source: Krizhevsky's
cuda-convnet (2012), with rectangular filters, two strides and ``flip`` added. Pixels in the pad are left out of a sum,
not multiplied by zero, so that an infinite weight stays invisible there.

The arguments that all functions share:

images : array (channels, rows, columns, batch)
filters : array (channels / groups, rows, columns, filters)
hid : array (filters, rows, columns, batch), outputs or their gradient
pad : (int, int), leading rows and columns of the pad; the trailing ones follow from the sizes
stride : (int, int)
flip : bool, read the filters backwards (true convolution)
groups : int, runs into which channels and filters are cut; a run of filters sees the run of channels with its number
"""
import numpy as np


def _inside(images, outputs, offset, stride):
    """Along one axis: the outputs i whose pixel ``i*stride + offset`` is in the image, and these pixels: two slices."""
    first = max(0, -(offset // stride))
    last = max(first, min(outputs, (images - 1 - offset) // stride + 1))
    pixel = first * stride + offset
    return slice(first, last), slice(pixel, pixel + (last - first) * stride, stride)


def _taps(image_shape, filter_shape, output_shape, pad, stride, flip):
    """For every filter tap: its index in the filters, the pixels under it, and the outputs that they belong to."""
    for row, column in np.ndindex(*filter_shape):
        (out_rows, rows), (out_columns, columns) = [
            _inside(image_shape[a], output_shape[a], tap - pad[a], stride[a]) for a, tap in enumerate((row, column))]
        tap = (filter_shape[0] - 1 - row, filter_shape[1] - 1 - column) if flip else (row, column)
        yield (slice(None),) + tap, (slice(None), rows, columns), (slice(None), out_rows, out_columns)


def _by_groups(function, groups, first, second, axes, *args):
    """`function` of the groups' operands, cut along `axes`[:2], its results joined along `axes`[2]."""
    pairs = zip(np.split(first, groups, axes[0]), np.split(second, groups, axes[1]))
    return np.concatenate([function(*pair, *args) for pair in pairs], axes[2])


def filter_acts(images, filters, output_shape, pad, stride, flip, groups=1):
    """Convolution: array (filters, rows, columns, batch), rows and columns as `output_shape` says.

    ``out[k,i,j,b] = sum over c,u,v of filters[c,u,v,k] * images[c, i*stride-pad+u, j*stride-pad+v, b]``
    """
    if groups > 1:
        return _by_groups(filter_acts, groups, images, filters, (0, 3, 0), output_shape, pad, stride, flip)
    out = np.zeros((filters.shape[3],) + tuple(output_shape) + (images.shape[3],), images.dtype)
    for tap, pixels, outputs in _taps(images.shape[1:3], filters.shape[1:3], output_shape, pad, stride, flip):
        out[outputs] += np.tensordot(filters[tap], images[pixels], (0, 0))
    return out


def image_acts(hid, filters, image_shape, pad, stride, flip, groups=1):
    """The adjoint of `filter_acts` for the images: array (channels, rows, columns, batch), of `image_shape`.

    A pixel that no window reads gets 0.
    """
    if groups > 1:
        return _by_groups(image_acts, groups, hid, filters, (0, 3, 0), image_shape, pad, stride, flip)
    images = np.zeros((filters.shape[0],) + tuple(image_shape) + (hid.shape[3],), hid.dtype)
    for tap, pixels, outputs in _taps(image_shape, filters.shape[1:3], hid.shape[1:3], pad, stride, flip):
        images[pixels] += np.tensordot(filters[tap], hid[outputs], (1, 0))
    return images


def weight_acts(images, hid, filter_shape, pad, stride, flip, groups=1):
    """The adjoint of `filter_acts` for the filters: array (channels / groups, rows, columns, filters), of `filter_shape`.
    """
    if groups > 1:
        return _by_groups(weight_acts, groups, images, hid, (0, 0, 3), filter_shape, pad, stride, flip)
    filters = np.zeros((images.shape[0],) + tuple(filter_shape) + (hid.shape[0],), images.dtype)
    for tap, pixels, outputs in _taps(images.shape[1:3], filter_shape, hid.shape[1:3], pad, stride, flip):
        filters[tap] = np.tensordot(images[pixels], hid[outputs], ((1, 2, 3), (1, 2, 3)))
    return filters


def weight_acts_partials(images, hid, filter_shape, pad, stride, flip, partial_sum, groups=1):
    """`weight_acts` by chunks of `partial_sum` consecutive output positions, a row of outputs after the other.

    Returns
    -------
    array (chunks, channels / groups, rows, columns, filters)
        The sum over axis 0 is `weight_acts`.
    """
    if groups > 1:
        return _by_groups(weight_acts_partials, groups, images, hid, (0, 0, 4), filter_shape, pad, stride, flip,
                          partial_sum)
    (channels, height, width, _), (filters, out_h, out_w, _) = images.shape, hid.shape
    chunks = out_h * out_w // partial_sum
    partials = np.zeros((chunks, channels) + tuple(filter_shape) + (filters,), images.dtype)
    for tap, pixels, outputs in _taps((height, width), filter_shape, (out_h, out_w), pad, stride, flip):
        positions = np.zeros((out_h, out_w, channels, filters), images.dtype)
        positions[outputs[1:]] = np.einsum("cijb,kijb->ijck", images[pixels], hid[outputs])
        partials[(slice(None),) + tap] = positions.reshape(chunks, partial_sum, channels, filters).sum(1)
    return partials
