"""How far a float32 result may lie from the exact one: bounds that follow from the arithmetic, never tuned ones.

Two ways to compare, the sharper one first:

* `whole_numbers`: on small whole numbers every product and every sum is exact in float32 whatever the order, so results
  must be *equal*. This finds a wrong index; it cannot see rounding.
* `bilinear_bound`: for real numbers. A sum of n products, in any order, with or without fused multiply-add, differs
  from the exact sum by at most ``gamma_n * sum |a||b|``, where ``gamma_n = n*u / (1 - n*u)`` and u = 2**-24 (Higham,
  Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), plus half of the smallest subnormal number per
  product.
"""
import numpy as np

UNIT_ROUNDOFF = 2.0 ** -24
SMALLEST = 2.0 ** -149
LARGEST_EXACT = 2 ** 24  # whole numbers up to here are float32 numbers


def gamma(terms, unit=UNIT_ROUNDOFF):
    """The relative error bound gamma_n of `terms` roundings, an integer or an array of them."""
    return terms * unit / (1 - terms * unit)


def whole_numbers(rng, shape, largest=3):
    """A float32 array of whole numbers in [-largest, largest]."""
    return rng.randint(-largest, largest + 1, shape).astype("float32")


def normal(rng, *shape):
    """A float32 array of normally distributed numbers."""
    return rng.standard_normal(shape).astype("float32")


def bilinear_bound(bilinear, a, b):
    """The exact value of sums of products, and the error that float32 may make.

    Parameters
    ----------
    bilinear : function (a, b) -> array
        Sums of products of elements of a and b, in the dtype of its arguments; evaluated in float64 here. On arrays of
        ones it gives the numbers of terms, on absolute values the sums of absolute products.
    a, b : float32 arrays

    Returns
    -------
    exact, bound : float64 arrays
        ``bound`` also covers the rounding of the float64 evaluation.
    """
    a, b = a.astype("float64"), b.astype("float64")
    magnitude, terms = bilinear(abs(a), abs(b)), bilinear(np.ones_like(a), np.ones_like(b))
    return bilinear(a, b), (gamma(terms) + gamma(terms, 2.0 ** -53)) * magnitude + terms * SMALLEST / 2


def assert_bilinear(actual, bilinear, a, b, factor=1):
    """Assert that float32 `actual` is ``bilinear(a, b)`` within `factor` bounds (2: to compare two float32 results)."""
    exact, bound = bilinear_bound(bilinear, a, b)
    assert actual.shape == exact.shape, (actual.shape, exact.shape)
    excess = abs(actual - exact) - factor * bound
    assert not (excess > 0).any() and not np.isnan(excess).any(), (
        "error %g where %g is allowed" % (abs(actual - exact).flat[np.argmax(excess)], bound.flat[np.argmax(excess)]))
