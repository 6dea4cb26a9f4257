"""Output sizes and work of convolution and pooling: one formula each, for Python integers and Theano scalars alike.

Sources: for the ceiling rule, Krizhevsky's cuda-convnet (2012); for the floor rule,
Theano's ``get_conv_output_shape`` and ``Pool.out_shape``. The C++ counterparts stand in ``cpu/conv_op.h`` and
``cpu/pool_op.h``.
"""

HALF, FULL = -1, -2  # a pad that depends on the filter: filter // 2, filter - 1


def resolve_pad(pad, filter_size):
    """The pads (before, after) of one axis, 'half' and 'full' put in numbers.

    Parameters
    ----------
    pad : (int, int)
        (before, after), or (HALF, HALF), or (FULL, FULL).
    filter_size : int or scalar variable
        Rows or columns of the filter.
    """
    if pad[0] == HALF:
        return filter_size // 2, filter_size // 2
    if pad[0] == FULL:
        return filter_size - 1, filter_size - 1
    return pad


def conv_outputs(image, filter_size, pad, stride, ceil_mode):
    """Output positions of a convolution along one axis.

    ``ceil_mode`` is cuda-convnet's rule, in which a last window may hang over the padded border; without it the count is
    Theano's, rounded down.

    Parameters
    ----------
    image, filter_size : int or scalar variable
        Sizes along this axis, in pixels.
    pad : (int, int)
        As `resolve_pad` gives it.
    stride : int
    ceil_mode : bool
    """
    room = image + pad[0] + pad[1] - filter_size
    return (-((-room) // stride) if ceil_mode else room // stride) + 1


def pool_outputs(image, window, stride, start, ceil_mode):
    """Windows of a pooling along one axis; window j covers [start + j*stride, start + j*stride + window), clipped.

    ``ceil_mode`` (cuda-convnet, and Theano's ``ignore_border=False``) lets the last window hang over the border, as long
    as it begins inside the image. Without it (Theano's ``ignore_border=True``) every window lies inside the image padded
    by -start on both sides.

    Parameters
    ----------
    image, window, stride : int or scalar variable
        Sizes along this axis, in pixels.
    start : int
        First pixel of the first window; negative: padding.
    ceil_mode : bool

    Returns
    -------
    int or scalar variable
        At least 0; always 0 for an image without pixels.
    """
    room = image - start - window
    if not ceil_mode:
        return _at_least(0, (room + max(0, -start)) // stride + 1) * (image > 0)
    hanging = _at_least(1, -(-room // stride) + 1)
    beginning_inside = (image - start - 1) // stride + 1
    return _at_least(0, beginning_inside - _at_least(0, beginning_inside - hanging)) * (image > 0)


def _at_least(bound, value):
    """max(bound, value), in operators that Python's integers and Theano's variables share."""
    return bound + (value - bound) * (value > bound)


def conv_flops(channels, filters, filter_shape, output_shape, batch):
    """Floating-point operations of a convolution or either of its gradients: a multiplication and an addition per tap.

    `channels` are those that a filter sees.
    """
    return 2 * channels * filters * filter_shape[0] * filter_shape[1] * output_shape[0] * output_shape[1] * batch
