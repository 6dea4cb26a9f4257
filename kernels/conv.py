"""FilterActs, ImageActs and WeightActs: convolution and its two adjoints on tensors in c01b order.

The ops of Krizhevsky's cuda-convnet (2012), under the names and arguments of pylearn2's wrappers, without their limits:
any channels, filters, batch and rectangle, two strides, four pads, groups. Their meaning is `kernels.reference.conv`; the C++
is in ``cpu/filter_acts.h``, ``cpu/image_acts.h`` and ``cpu/weight_acts.h``, entered through ``cpu/conv_op.h``.

Two geometries, by ``ceil_mode``. True is cuda-convnet's: the output count is rounded up, a last window may hang over
the padded border, and wherever the count is given (``output_shape``, the shape of `hid`), any from the rounded-down one
upwards will do. False is Theano's: rounded down, and nothing else is accepted, so that the three ops are
AbstractConv2d, AbstractConv2d_gradInputs and AbstractConv2d_gradWeights for every border mode, subsample, filter_flip
and num_groups.

Each op is linear in each of its two tensors, and each gradient is another of the three: derivatives of any order exist.
"""
import numpy as np
from theano.gof import Apply, ParamsType
from theano.gradient import DisconnectedType, grad_not_implemented
from theano.scalar import int64
from theano.tensor import TensorType, cast, patternbroadcast

from .base import C01bOp, as_c01b, as_output_shape, as_pair, winograd_tile
from .geometry import FULL, HALF, conv_flops, conv_outputs, resolve_pad
from .reference import conv as reference

# Theano's names of pads; 'half' and 'full' wait for the filter's size.
_NAMED_PADS = {"valid": ((0, 0), (0, 0)), "half": "half", "full": "full"}
_RUN_TIME_PADS = {"half": ((HALF, HALF), (HALF, HALF)), "full": ((FULL, FULL), (FULL, FULL))}

# What the C++ code is told at run time, all as int64: see conv_params in cpu/conv_op.h.
_PARAMS = ("stride_y", "stride_x", "pad_top", "pad_bottom", "pad_left", "pad_right", "flip", "ceil_mode", "partial_sum",
           "groups", "winograd")

# Larger parameters could overflow an index, and no image is that large.
_LARGEST = 2 ** 31 - 1


def _within(name, pair):
    if max(pair) > _LARGEST:
        raise ValueError("%s must be at most %d, got %r" % (name, _LARGEST, pair))
    return pair


def _as_integer(name, value, kind="an integer"):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError("%s must be %s, got %r" % (name, kind, value))
    return int(value)


def as_pad(value):
    """A pad in its one normal form.

    Parameters
    ----------
    value : int, (rows, columns), ((top, bottom), (left, right)), 'valid', 'half' or 'full'
        Rows and columns may also be mixed: an integer for one, a pair for the other.

    Returns
    -------
    ((top, bottom), (left, right)), or 'half' or 'full', which depend on the filter's size

    Raises
    ------
    TypeError, ValueError
        For anything else; for a negative pad.
    """
    if isinstance(value, str):
        if value not in _NAMED_PADS:
            raise ValueError("pad is %r; as a string it can be %s" % (value, ", ".join(sorted(_NAMED_PADS))))
        return _NAMED_PADS[value]
    axes = value if isinstance(value, (tuple, list)) else (value, value)
    if len(axes) != 2:
        raise TypeError("pad must be one value or two, for rows and columns, got %r" % (value,))
    return tuple(_within("pad", as_pair("pad", axis, 0)) for axis in axes)


def _short(value):
    """For printing: (2, 2) as 2, ((1, 1), (2, 3)) as (1, (2, 3))."""
    if not isinstance(value, tuple):
        return value
    first, second = map(_short, value)
    return first if first == second and not isinstance(first, tuple) else (first, second)


def _as_int64_shape(op, value):
    """An output_shape of any integer dtype as int64, so that no dtype costs a compilation."""
    return cast(as_output_shape(op, value), "int64")


def _optional_shape(op, value):
    return [] if value is None else [_as_int64_shape(op, value)]


def _gradients(inputs, gradients):
    """The gradients of the two tensors, with their broadcast patterns; an output_shape is disconnected."""
    gradients = [patternbroadcast(g, x.broadcastable) for g, x in zip(gradients, inputs)]
    return gradients + [DisconnectedType()() for _ in inputs[2:]]


class _ConvOp(C01bOp):
    """What the three ops share: parameters, run-time checks, and how one op makes the next.

    Parameters
    ----------
    pad : int, (rows, columns), ((top, bottom), (left, right)), 'valid', 'half' or 'full'
        Zeros around the image, never stored. 'half' is filter // 2 and 'full' is filter - 1 on each side.
    partial_sum : int, optional
        Output positions per partial sum of WeightActs; None or <= 0: all. Another order of summation is its only
        effect. FilterActs and ImageActs merely hand it to their gradients, so it is no part of their equality: two
        nodes that compute the same are merged. Gradients are built before that; where someone takes the gradient of a
        graph already merged, either node's partial_sum is used, for the same values up to rounding.
    stride : int or (rows, columns)
    flip : bool
        Read the filters backwards: convolution in the mathematical sense, without a flipped copy.
    ceil_mode : bool
        The geometry; see the module's docstring.
    groups : int
        Channels and filters are cut into so many runs of equal length, and a run of filters sees only the run of
        channels with the same number: filters are (channels / groups, rows, columns, filters).
    openmp : bool, optional
        See `C01bOp`.

    Attributes
    ----------
    pad : ((int, int), (int, int)), 'half' or 'full'
    stride : (int, int)
    partial_sum : int or None
    groups : int

    Raises
    ------
    TypeError
        Where a number is not an integer.
    ValueError
        For a negative pad, a stride or groups below 1, any number above 2**31 - 1, or an unknown name.
    """

    __props__ = ("pad", "stride", "flip", "ceil_mode", "groups")
    params_type = ParamsType(**dict.fromkeys(_PARAMS, int64))

    def __init__(self, pad=0, partial_sum=None, stride=1, flip=False, ceil_mode=True, groups=1, openmp=None):
        super().__init__(openmp=openmp)
        chunk = 0 if partial_sum is None else _as_integer("partial_sum", partial_sum, "an integer or None")
        self.pad = as_pad(pad)
        self.partial_sum = _within("partial_sum", (chunk,))[0] if chunk > 0 else None
        self.stride = _within("stride", as_pair("stride", stride, 1))
        self.flip = bool(flip)
        self.ceil_mode = bool(ceil_mode)
        self.groups, = _within("groups", (_as_integer("groups", groups),))
        if self.groups < 1:
            raise ValueError("groups must be at least 1, got %d" % self.groups)

    def __str__(self):
        parts = ["pad=%s" % (_short(self.pad),), "stride=%s" % (_short(self.stride),)]
        parts += ["partial_sum=%d" % self.partial_sum] if "partial_sum" in self.__props__ and self.partial_sum else []
        parts += ["flip"] if self.flip else []
        parts += [] if self.ceil_mode else ["floor"]
        parts += ["groups=%d" % self.groups] if self.groups > 1 else []
        return "%s{%s}" % (type(self).__name__, ", ".join(parts))

    def like(self, other):
        """The op of class `other` (FilterActs, ImageActs, WeightActs) with this op's parameters."""
        return other(self.pad, self.partial_sum, self.stride, self.flip, self.ceil_mode, self.groups, self.openmp)

    def pads(self, filter_shape):
        """((top, bottom), (left, right)) for filters of (rows, columns): Python integers or scalar variables."""
        return tuple(resolve_pad(*pair) for pair in zip(_RUN_TIME_PADS.get(self.pad, self.pad), filter_shape))

    def output_grid(self, image_shape, filter_shape):
        """(rows, columns) of outputs where none are asked for: Python integers or scalar variables."""
        return tuple(conv_outputs(image_shape[a], filter_shape[a], pad, self.stride[a], self.ceil_mode)
                     for a, pad in enumerate(self.pads(filter_shape)))

    # What Theano asks of all three.

    def run_time_params(self):
        """What the C++ code is told, by name (`_PARAMS`)."""
        (top, bottom), (left, right) = _RUN_TIME_PADS.get(self.pad, self.pad)
        values = self.stride + (top, bottom, left, right, self.flip, self.ceil_mode, self.partial_sum or 0, self.groups,
                                winograd_tile())
        return {name: int(value) for name, value in zip(_PARAMS, values)}

    def get_params(self, node):
        return self.params_type.get_params(**self.run_time_params())

    def c_code(self, node, name, inputs, outputs, sub):
        shape = inputs[2] if len(inputs) == 3 else "nullptr"
        targets = ["&" + output for output in outputs] + ["nullptr"] * (len(self.kernels) - len(outputs))
        kernels = ["c01b::" + kernel for kernel in self.kernels]
        call = ", ".join([*inputs[:2], shape, *targets, "c01b::conv_params(%s)" % sub["params"], *kernels])
        return "if (c01b::%s_op(%s)) %s" % (self.kernels[0], call, sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def connection_pattern(self, node):
        return [[True] * len(node.outputs)] * 2 + [[False] * len(node.outputs)] * (len(node.inputs) - 2)

    def R_op(self, inputs, eval_points):
        (first, second), (d_first, d_second) = inputs[:2], eval_points[:2]
        # Bilinear: the derivative of each tensor in turn, with the other one held.
        terms = [self(*pair, *inputs[2:], return_list=True)
                 for pair in ((d_first, second), (first, d_second)) if all(x is not None for x in pair)]
        if not terms:
            return [None] * len(self.make_node(*inputs).outputs)
        return [term[0] if len(term) == 1 else term[0] + term[1] for term in zip(*terms)]

    def perform(self, node, inputs, output_storage, params=None):
        """Through the numpy reference, with the C++ code's checks; used only where Theano has no compiler."""
        for storage, value in zip(output_storage, self._compute(*inputs)):
            storage[0] = value

    # Run-time checks: the twins, messages included, of those in cpu/conv_op.h.

    def _require(self, condition, message, *numbers):
        if not condition:
            raise ValueError("%s: %s" % (type(self).__name__, message % numbers))

    def _check_equal(self, what, first, whose_first, second, whose_second):
        self._require(first == second, "%s differ: %s have %d, %s have %d",
                      what, whose_first, first, whose_second, second)

    def _check_groups(self, channels, filters):
        for count, what in ((channels, "channels"), (filters, "filters")):
            self._require(count % self.groups == 0, "%d groups do not divide %d %s", self.groups, count, what)

    def _check_grid(self, image_shape, filter_shape, output_shape):
        rule = "at least" if self.ceil_mode else "expected"
        for name, outputs, image, size, pad, stride in zip(("rows", "columns"), output_shape, image_shape, filter_shape,
                                                           self.pads(filter_shape), self.stride):
            least = conv_outputs(image, size, pad, stride, False)
            self._require(outputs >= least if self.ceil_mode else outputs == least,
                          "%d output %s do not fit images of %d, filters of %d, pad (%d, %d), stride %d: %s %d",
                          outputs, name, image, size, *pad, stride, rule, least)

    def _read_shape(self, shape):
        self._require(shape.shape == (2,), "output_shape must be 2 integers, got %d axes and %d elements",
                      shape.ndim, shape.size)
        for size in shape.tolist():
            self._require(size >= 0, "output_shape has a negative size: %d", size)
            self._require(size <= _LARGEST, "output_shape is too large: %d", size)
        return tuple(shape.tolist())

    def _kernel_args(self, filter_shape):
        (top, _), (left, _) = self.pads(filter_shape)
        return (top, left), self.stride, self.flip

    def _group(self, what):
        """'channels', or 'channels of a group': for messages."""
        return what if self.groups == 1 else what + " of a group"


class FilterActs(_ConvOp):
    """Convolution in c01b order: ``FilterActs(pad, partial_sum, stride)(images, filters)``.

    ``out[k,i,j,b] = sum over c,u,v of filters[c,u,v,k] * images[c, i*stride-pad+u, j*stride-pad+v, b]``, images reading
    as zero outside. Filters without rows or columns give zeros, as Theano's do, with 'full' a pad of -1. The constructor's
    parameters are those of `_ConvOp`.

    Parameters
    ----------
    images : float32 (channels, rows, columns, batch)
    filters : float32 (channels / groups, rows, columns, filters)
    output_shape : integer vector (rows, columns), optional
        How many outputs to compute. By default ``ceil`` or ``floor((rows + pads - filter rows) / stride) + 1``.

    Returns
    -------
    float32 (filters, rows, columns, batch)

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run: channels that differ, groups that do not divide channels or filters, no output left or more than 2**31 - 1
        along an axis, an output_shape against the geometry.

    Notes
    -----
    Source: ``filter_acts.cu`` of cuda-convnet, ``FilterActs`` of pylearn2.
    """

    kernels = ("filter_acts",)
    headers = ("conv_op.h", "filter_acts.h")

    def make_node(self, images, filters, output_shape=None):
        images, filters = as_c01b(self, "images", images), as_c01b(self, "filters", filters)
        pattern = (filters.broadcastable[3], False, False, images.broadcastable[3])
        return Apply(self, [images, filters] + _optional_shape(self, output_shape), [TensorType("float32", pattern)()])

    def _compute(self, images, filters, shape=None):
        image_shape, filter_shape = images.shape[1:3], filters.shape[1:3]
        self._check_groups(images.shape[0], filters.shape[3])
        self._check_equal(self._group("channels"), images.shape[0] // self.groups, "images", filters.shape[0], "filters")
        if shape is None:
            grid, (pad, stride, _) = self.output_grid(image_shape, filter_shape), self._kernel_args(filter_shape)
            self._require(min(grid) >= 1 and max(grid) <= _LARGEST,
                          "images of %d x %d give %d x %d outputs with filters of %d x %d, leading pad (%d, %d), stride (%d, %d)",
                          *image_shape, *grid, *filter_shape, *pad, *stride)
        else:
            grid = self._read_shape(shape)
            self._check_grid(image_shape, filter_shape, grid)
        return [reference.filter_acts(images, filters, grid, *self._kernel_args(filter_shape), self.groups)]

    def infer_shape(self, node, shapes):
        images, filters = shapes[:2]
        grid = node.inputs[2] if len(shapes) == 3 else self.output_grid(images[1:3], filters[1:3])
        return [(filters[3], grid[0], grid[1], images[3])]

    def grad(self, inputs, output_grads):
        images, filters = inputs[:2]
        outputs_grad, = output_grads
        gradients = [self.like(ImageActs)(outputs_grad, filters, images.shape[1:3]),
                     self.like(WeightActs)(images, outputs_grad, filters.shape[1:3])[0]]
        return _gradients(inputs, gradients)

    def flops(self, inputs, outputs):
        """Floating-point operations, from the shapes of inputs and outputs (Theano's profiler)."""
        (*_, batch), (channels, *filter_shape, filters) = inputs[:2]
        return conv_flops(channels, filters, filter_shape, outputs[0][1:3], batch)


class ImageActs(_ConvOp):
    """The gradient for FilterActs' images: ``ImageActs(pad, partial_sum, stride)(hid, filters, output_shape)``.

    The adjoint of `FilterActs` as a map of its images; pixels that no window reads get zero. The constructor's
    parameters are those of `_ConvOp`.

    Parameters
    ----------
    hid : float32 (filters, rows, columns, batch)
        Gradients of FilterActs' outputs.
    filters : float32 (channels / groups, rows, columns, filters)
    output_shape : integer vector (rows, columns), optional
        The size of the images: with a stride above 1 several sizes lead to one output. Optional where the stride is 1.

    Returns
    -------
    float32 (channels, rows, columns, batch)

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        From the call, without an output_shape though the stride is not 1. When run: filters that differ, groups that do
        not divide them, an output_shape or grid of `hid` against the geometry.

    Notes
    -----
    Source: ``img_acts.cu`` of cuda-convnet, ``ImageActs`` of pylearn2.
    """

    kernels = ("image_acts",)
    headers = ("conv_op.h", "image_acts.h")

    def make_node(self, hid, filters, output_shape=None):
        hid, filters = as_c01b(self, "hid", hid), as_c01b(self, "filters", filters)
        if output_shape is None and self.stride != (1, 1):
            raise ValueError("ImageActs: output_shape is needed with stride %s: several image sizes give the same "
                             "outputs" % (_short(self.stride),))
        pattern = (filters.broadcastable[0] and self.groups == 1, False, False, hid.broadcastable[3])
        return Apply(self, [hid, filters] + _optional_shape(self, output_shape), [TensorType("float32", pattern)()])

    def _image_shape(self, hid_shape, filter_shape):
        return tuple(hid_shape[a] + filter_shape[a] - 1 - sum(pad) for a, pad in enumerate(self.pads(filter_shape)))

    def _compute(self, hid, filters, shape=None):
        self._check_equal("filters", hid.shape[0], "output gradients", filters.shape[3], "filters")
        grid, filter_shape = hid.shape[1:3], filters.shape[1:3]
        self._check_groups(filters.shape[0] * self.groups, filters.shape[3])
        if shape is None:
            image_shape = self._image_shape(grid, filter_shape)
            self._require(min(image_shape) >= 0, "images would be %d x %d", *image_shape)
        else:
            image_shape = self._read_shape(shape)
        self._check_grid(image_shape, filter_shape, grid)
        return [reference.image_acts(hid, filters, image_shape, *self._kernel_args(filter_shape), self.groups)]

    def infer_shape(self, node, shapes):
        hid, filters = shapes[:2]
        size = node.inputs[2] if len(shapes) == 3 else self._image_shape(hid[1:3], filters[1:3])
        return [(filters[0] * self.groups, size[0], size[1], hid[3])]

    def grad(self, inputs, output_grads):
        hid, filters = inputs[:2]
        images, = output_grads
        # The ceiling geometry accepts more outputs than it would give by itself: hid's own count is the one to return.
        grid = [hid.shape[1:3]] if self.ceil_mode else []
        gradients = [self.like(FilterActs)(images, filters, *grid),
                     self.like(WeightActs)(images, hid, filters.shape[1:3])[0]]
        return _gradients(inputs, gradients)

    def flops(self, inputs, outputs):
        """Floating-point operations, from the shapes of inputs and outputs (Theano's profiler)."""
        (_, *grid, batch), (channels, *filter_shape, filters) = inputs[:2]
        return conv_flops(channels, filters, filter_shape, grid, batch)


class WeightActs(_ConvOp):
    """The gradient for FilterActs' filters: ``WeightActs(pad, partial_sum, stride)(images, hid, output_shape)[0]``.

    The adjoint of `FilterActs` as a map of its filters. The constructor's parameters are those of `_ConvOp`.

    Parameters
    ----------
    images : float32 (channels, rows, columns, batch)
    hid : float32 (filters, rows, columns, batch)
        Gradients of FilterActs' outputs.
    output_shape : integer vector (rows, columns)
        The size of the filters.

    Returns
    -------
    list
        [dW], float32 (channels / groups, rows, columns, filters). With a partial_sum [dW, partials], the partial sums in
        a float32 (chunks, channels / groups, rows, columns, filters); chunk q is over the output positions
        [q*partial_sum, (q+1)*partial_sum), counted row after row, and dW is the sum of the chunks. Always a list, so that
        ``[0]`` is right in any case.

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run: batches that differ, groups that do not divide channels or filters, empty filters, a grid of `hid`
        against the geometry, a partial_sum that does not divide the number of output positions.

    Notes
    -----
    Source: ``weight_acts.cu`` of cuda-convnet, ``WeightActs`` of pylearn2. No gradient is defined for `partials`: it
    would take one convolution per chunk, and their number is known only at run time.
    """

    __props__ = _ConvOp.__props__ + ("partial_sum",)
    kernels = ("weight_acts", "weight_acts_partials")
    headers = ("conv_op.h", "weight_acts.h")
    __str__ = _ConvOp.__str__  # Theano writes one into every class with __props__

    def __call__(self, *inputs, **kwargs):
        kwargs["return_list"] = True
        return super().__call__(*inputs, **kwargs)

    def make_node(self, images, hid, output_shape):
        images, hid = as_c01b(self, "images", images), as_c01b(self, "hid", hid)
        pattern = (images.broadcastable[0], False, False, hid.broadcastable[0])
        patterns = [pattern] + ([(False,) + pattern] if self.partial_sum else [])
        return Apply(self, [images, hid, _as_int64_shape(self, output_shape)],
                     [TensorType("float32", pattern)() for pattern in patterns])

    def _compute(self, images, hid, shape):
        self._check_equal("batches", images.shape[3], "images", hid.shape[3], "output gradients")
        filter_shape = self._read_shape(shape)
        self._check_groups(images.shape[0], hid.shape[0])
        self._require(min(filter_shape) >= 1, "filters of %d x %d", *filter_shape)
        grid = hid.shape[1:3]
        self._check_grid(images.shape[1:3], filter_shape, grid)
        if not self.partial_sum:
            return [reference.weight_acts(images, hid, filter_shape, *self._kernel_args(filter_shape), self.groups)]
        modules = grid[0] * grid[1]
        self._require(modules % self.partial_sum == 0, "partial_sum %d does not divide the %d x %d = %d modules",
                      self.partial_sum, *grid, modules)
        partials = reference.weight_acts_partials(images, hid, filter_shape, *self._kernel_args(filter_shape),
                                                  self.partial_sum, self.groups)
        return [partials.sum(0), partials]

    def infer_shape(self, node, shapes):
        images, hid = shapes[:2]
        size = node.inputs[2]
        filters = (images[0] // self.groups, size[0], size[1], hid[0])
        partials = [(hid[1] * hid[2] // self.partial_sum,) + filters] if self.partial_sum else []
        return [filters] + partials

    def grad(self, inputs, output_grads):
        images, hid = inputs[:2]
        if not all(isinstance(gradient.type, DisconnectedType) for gradient in output_grads[1:]):
            why = "Partial sums have no gradient (one convolution per chunk); take that of output 0, their sum."
            return [grad_not_implemented(self, i, inputs[i], why) for i in (0, 1)] + [DisconnectedType()()]
        filters = output_grads[0]
        grid = [hid.shape[1:3]] if self.ceil_mode else []
        gradients = [self.like(ImageActs)(hid, filters, images.shape[1:3]),
                     self.like(FilterActs)(images, filters, *grid)]
        return _gradients(inputs, gradients)

    def flops(self, inputs, outputs):
        """Floating-point operations, from the shapes of inputs and outputs (Theano's profiler)."""
        (*_, batch), (filters, *grid, _) = inputs[:2]
        channels, *filter_shape, _ = outputs[0]
        return conv_flops(channels, filters, filter_shape, grid, batch)
