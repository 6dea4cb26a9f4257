"""Tanh and Sigmoid on float32 tensors of any rank, vectorised: Theano's Elemwise calls libm once per element.

The C++ is in ``cpu/activation.h``, where the error is bounded: at most 2 units in the last place from the correctly
rounded result, for all float32 numbers.
"""
from theano.gof import Apply, ParamsType
from theano.scalar import bool as scalar_bool
from theano.tensor import as_tensor_variable, sqr

from .base import C01bOp
from .reference import activation as reference


class _Activation(C01bOp):
    """What the two activations share; subclasses give `reference` and `derivative`, their names are the C++ functions'.

    Parameters
    ----------
    inplace : bool, optional
        May overwrite the input; Theano's in-place stage substitutes this where it is safe (`rewrites.inplace`).
    openmp : bool, optional
        See `C01bOp`.
    """

    __props__ = ("inplace",)
    headers = ("activation_op.h",)
    params_type = ParamsType(inplace=scalar_bool)  # at run time, so that both kinds are one compiled module

    def __init__(self, inplace=False, openmp=None):
        super().__init__(openmp=openmp)
        self.inplace = bool(inplace)
        if self.inplace:
            self.destroy_map = {0: [0]}

    def in_place(self):
        """This op, allowed to overwrite its input."""
        return type(self)(inplace=True, openmp=self.openmp)

    def make_node(self, x):
        """One node: float32 `x` of any rank and strides to a C-contiguous tensor of the same shape.

        Raises
        ------
        TypeError
            If `x` is not float32.
        """
        x = as_tensor_variable(x)
        if x.dtype != "float32":
            raise TypeError("%s: x must be a float32 tensor, got %s" % (type(self).__name__, x.type))
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage, params=None):
        output_storage[0][0] = self.reference(inputs[0])

    def c_code(self, node, name, inputs, outputs, sub):
        return "if (c01b::activation_op<c01b::%s>(%s, %s->inplace, &%s)) { %s }" % (
            type(self).__name__, inputs[0], sub["params"], outputs[0], sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        return shapes

    def L_op(self, inputs, outputs, output_gradients):
        return [output_gradients[0] * self.derivative(outputs[0])]

    def R_op(self, inputs, eval_points):
        return [None if point is None else point * self.derivative(self(x)) for x, point in zip(inputs, eval_points)]


class Tanh(_Activation):
    """The hyperbolic tangent of each element, within 2 units in the last place; -0, infinities and NaN as in C."""

    reference = staticmethod(reference.tanh)

    @staticmethod
    def derivative(y):
        return 1 - sqr(y)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)) of each element, within 2 units in the last place; never overflows, underflows gradually."""

    reference = staticmethod(reference.sigmoid)

    @staticmethod
    def derivative(y):
        return y * (1 - y)


tanh = Tanh()
sigmoid = Sigmoid()
