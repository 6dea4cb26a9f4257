"""Steps of random programs that are convolutions and poolings, of every kind that Theano has.

A step is a function of the `Draft`: it draws operands and parameters that fit and adds a line or two, or does nothing where
nothing fits.
"""
from typing import NamedTuple

from theano.tensor.signal.pool import Pool

def pad_of(border_mode, taps):
    """((top, bottom), (left, right)) of a border mode."""
    named = {"valid": lambda k: (0, 0), "half": lambda k: (k // 2, k // 2), "full": lambda k: (k - 1, k - 1)}
    if isinstance(border_mode, str):
        return tuple(named[border_mode](k) for k in taps)
    if isinstance(border_mode, int):
        return ((border_mode, border_mode),) * 2
    return tuple(axis if isinstance(axis, tuple) else (axis, axis) for axis in border_mode)


class Geometry(NamedTuple):
    """A convolution's parameters, as `options` writes them."""

    taps: tuple
    border_mode: object = "valid"
    subsample: tuple = (1, 1)
    filter_dilation: tuple = (1, 1)
    filter_flip: bool = True
    num_groups: int = 1

    def outputs(self, image):
        """Rows and columns of the outputs, which may be below 1."""
        span = [(k - 1) * d + 1 for k, d in zip(self.taps, self.filter_dilation)]
        return tuple((n + sum(p) - k) // s + 1
                     for n, p, k, s in zip(image, pad_of(self.border_mode, span), span, self.subsample))

    def options(self, *names):
        default = Geometry(self.taps)._asdict()
        return ["%s=%r" % (name, value) for name, value in self._asdict().items()
                if name != "taps" and (name in names or not names) and value != default[name]]


def draw_geometry(d, taps, groups):
    border_mode = d.one_of("valid", "half", "full", 1, (0, 1), (2, 1), ((1, 0), (0, 2)), ((0, 1), (2, 2)))
    return Geometry(taps, border_mode, (d.one_of(1, 1, 1, 2, 3), d.one_of(1, 1, 1, 2, 3)),
                    (2, d.number(1, 2)) if d.chance(12) else (1, 1), not d.chance(3), groups)


def draw_filters(d, channels, groups, count=None):
    """An expression for filters, and their shape: shared ones, sometimes those of another convolution, an input, or computed."""
    def fits(v):
        return (v.shape[1] * groups == channels and v.shape[0] % groups == 0 and max(v.shape[2:]) <= 4 and v.shape[0] <= 12
                and count in (None, v.shape[0]))

    known = [v for v in d.weights + d.values if v.ndim == 4 and v.dtype == "float32" and fits(v)]
    if known and d.chance(3):
        filters = d.one_of(*known)
        return filters.name, filters.shape
    tied = [v for v in d.weights if v.ndim == 4 and v.shape[0] == channels and groups == 1 and count in (None, v.shape[1])]
    if tied and d.chance(6):
        filters = d.one_of(*tied)
        return ("%s.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]" % filters.name,
                (filters.shape[1], filters.shape[0]) + filters.shape[2:])
    count = count or groups * d.number(1, 6 // groups)
    shape = (count, channels // groups, d.one_of(3, 1, 2, 3, 4), d.one_of(3, 1, 2, 3, 5))
    kind = d.number(0, 9)
    if kind == 9:
        stored = d.shared(shape[2:] + (shape[1], shape[0]))
        return "%s.dimshuffle(3, 2, 0, 1)" % stored.name, shape
    if kind == 8:
        return d.given(shape).name, shape
    name = d.shared(shape).name
    return ("T.tanh(%s)" % name if kind == 7 and d.fractions else "%s[::-1] * 2" % name if kind == 7 else name), shape


def hints(d, name, shape):
    """Sizes that a convolution is told: none, all or some."""
    if d.chance(2):
        return []
    return ["%s=%s" % (name, tuple(None if d.chance(3) else size for size in shape))]


def groups_of(d, channels):
    return d.one_of(*[g for g in (1, 1, 2, 3) if channels % g == 0])


def convolution(d):
    x = d.pick(4)
    groups = groups_of(d, x.shape[1])
    filters, shape = draw_filters(d, x.shape[1], groups)
    geometry = draw_geometry(d, shape[2:], groups)
    rows, columns = geometry.outputs(x.shape[2:])
    if min(rows, columns) < 1:
        return
    told = [] if d.others else hints(d, "input_shape", x.shape)
    options = told + hints(d, "filter_shape", shape) + geometry.options()
    d.add("T.nnet.conv2d(%s)" % ", ".join([x.name, filters] + options), (x.shape[0], shape[0], rows, columns))


LAYERS = ("T.nnet.relu({0})", "T.maximum({0}, 0)", "T.tanh({0})", "{0}", "T.nnet.relu({0}, 0.25)", "abs({0})")


def layer(d):
    """A convolution, its bias and an activation, and perhaps a pooling between."""
    before = len(d.values)
    convolution(d)
    if len(d.values) == before:
        return
    if d.chance(3):
        pooling(d)
    x = d.values[-1]
    if x.ndim == 4:
        bias = "%s.dimshuffle('x', 0, 'x', 'x')" % d.shared((x.shape[1],)).name
        biased = d.one_of("(%s + %s)" % (x.name, bias), "(%s + %s)" % (bias, x.name), "(%s - %s)" % (x.name, bias), x.name)
        d.add(d.one_of(*LAYERS).format(biased), x.shape)
    if d.chance(3):
        pooling(d)


def convolution_by_hand(d):
    """CorrMM and ConvOp, as old programs have them."""
    x = d.pick(4)
    filters, shape = draw_filters(d, x.shape[1], 1)
    geometry = draw_geometry(d, shape[2:], 1)
    if d.chance(2):
        geometry = geometry._replace(border_mode=d.one_of("valid", "full"), filter_dilation=(1, 1))
        strides = geometry.subsample if geometry.border_mode == "valid" else (1, 1)
        geometry = geometry._replace(subsample=strides)
        told = ["imshp=%s" % (x.shape[1:],), "kshp=%s" % (shape[2:],), "nkern=%d" % shape[0], "bsize=%d" % x.shape[0]]
        parameters = ["output_mode=%r" % geometry.border_mode] + ["dx=%d, dy=%d" % strides]
        op = "ConvOp(%s)" % ", ".join(parameters + (told if d.chance(2) and not d.others else []))
    else:
        op = "CorrMM(%s)" % ", ".join(geometry.options("border_mode", "subsample", "filter_dilation"))
    rows, columns = geometry.outputs(x.shape[2:])
    if min(rows, columns) >= 1:
        d.add("%s(%s, %s)" % (op, x.name, filters), (x.shape[0], shape[0], rows, columns))


def image_gradient(d):
    """A convolution backwards as a layer: images of a size whose convolution has the size of `x`."""
    x = d.pick(4)
    groups = groups_of(d, x.shape[1])
    channels = groups * d.number(1, 3)
    filters, shape = draw_filters(d, channels, groups, count=x.shape[1])
    geometry = draw_geometry(d, shape[2:], groups)._replace(filter_dilation=(1, 1))
    pads = pad_of(geometry.border_mode, shape[2:])
    image = [(n - 1) * s + k - sum(p) + (d.number(0, s - 1) if s > 1 else 0)
             for n, s, k, p in zip(x.shape[2:], geometry.subsample, shape[2:], pads)]
    if min(image) < 1:
        return
    batch = "None" if d.others else d.one_of("None", str(x.shape[0]))
    size = "(%s, %d, %d, %d)" % (batch, channels, *image)
    arguments = [x.name, filters, size] + hints(d, "filter_shape", shape) + geometry.options()
    d.add("conv2d_grad_wrt_inputs(%s)" % ", ".join(arguments), (x.shape[0], channels, *image))


def weight_gradient(d):
    """As a layer, of images and outputs of the batch."""
    x = d.pick(4)
    outputs = d.pick(4, where=lambda v: v.shape[0] == x.shape[0])
    taps = tuple(n - m + 1 for n, m in zip(x.shape[2:], outputs.shape[2:]))
    if min(taps) < 1 or max(taps) > 5:
        return
    shape = (outputs.shape[1], x.shape[1]) + taps
    flip = [] if d.chance(2) else ["filter_flip=False"]
    d.add("conv2d_grad_wrt_weights(%s)" % ", ".join([x.name, outputs.name, str(shape)] + flip), shape)


def double_precision(d):
    x = d.pick(4)
    filters, shape = draw_filters(d, x.shape[1], 1)
    rows, columns = Geometry(shape[2:]).outputs(x.shape[2:])
    if min(rows, columns) >= 1:
        d.add("T.cast(T.nnet.conv2d(T.cast(%s, 'float64'), T.cast(%s, 'float64')), 'float32')" % (x.name, filters),
              (x.shape[0], shape[0], rows, columns))


def pooling(d):
    x = d.pick(4) if not d.chance(8) else d.pick(3, 4, 5)
    window = d.one_of((2, 2), (3, 3), (2, 3), (1, 2), (3, 1), (4, 2))
    options, stride, pad, ceil = [], window, (0, 0), d.chance(3)
    if d.chance(2):
        stride = d.one_of((2, 2), (1, 1), (1, 2), (3, 2), (2, 4))
        options.append("stride=%s" % (stride,))
    if not ceil and d.chance(3):
        pad = tuple(min(p, w - 1) for p, w in zip(d.one_of((1, 1), (0, 1), (2, 0)), window))
        options.append("pad=%s" % (pad,))
    mode = d.one_of("max", "max", "sum", "average_inc_pad", "average_exc_pad")
    shape = Pool.out_shape(x.shape, window, not ceil, stride, pad, 2)
    if min(shape) >= 1:
        d.add("pool_2d(%s)" % ", ".join([x.name, str(window), "ignore_border=%s" % (not ceil)] + options + ["mode=%r" % mode]),
              shape)
