"""What carries the layout: one rule per op family, all in one table.

A rule takes a node and the `Shapes` of its graph and returns the node's `Choice`, or None where it does not apply. Files
register their rules with `@carries(OpClass, ...)`; the planner asks `choice_of`.
"""
from .registry import carries, carriers, choice_of, why_not
from . import (batchnorm, contiguity, control, cross_map, dimshuffle, elemwise, join, matrix_product, reduction,  # noqa: F401
               repeat, reshape, shape, softmax, subtensor, take)  # they register

__all__ = ["carries", "carriers", "choice_of", "why_not"]
