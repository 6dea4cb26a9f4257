"""What a convolution or pooling must fulfil to become a c01b op, as data.

Two sets. ``layoutopt`` is what our ops can do; ``cuda_convnet`` adds what the original kernels of 2012 demanded, with
their reasons, for whoever wants to know or to compare.
"""
from typing import Callable, NamedTuple, Tuple

FORWARD = "convolution"
IMAGE_GRADIENT = "image gradient"
WEIGHT_GRADIENT = "weight gradient"
MAX_POOL = "max-pooling"
MAX_POOL_GRADIENT = "max-pooling gradient"
MAX_POOL_SECOND = "max-pooling second derivative"
AVG_POOL = "average pooling"  # and sums
AVG_POOL_GRADIENT = "average pooling gradient"
# Theano has no op for these: they are met only in programs written in c01b.
PROB_POOL = "probabilistic max-pooling"
PROB_POOL_GRADIENT = "probabilistic max-pooling gradient"
STOCHASTIC_POOL = "stochastic pooling"
WEIGHTED_POOL = "weighted pooling"
WEIGHTED_POOL_GRADIENT = "weighted pooling gradient"

CONVOLUTIONS = (FORWARD, IMAGE_GRADIENT, WEIGHT_GRADIENT)
AVG_POOLS = (AVG_POOL, AVG_POOL_GRADIENT)
POOLS = (MAX_POOL, MAX_POOL_GRADIENT, MAX_POOL_SECOND) + AVG_POOLS
OTHER_POOLS = (PROB_POOL, PROB_POOL_GRADIENT, STOCHASTIC_POOL, WEIGHTED_POOL, WEIGHTED_POOL_GRADIENT)
ALL = CONVOLUTIONS + POOLS + OTHER_POOLS


class Verdict(NamedTuple):
    """May a site become a c01b op? `reason` is the first constraint it breaks, with the numbers in it."""

    qualifies: bool
    reason: str


class Constraint(NamedTuple):
    """A condition on the facts of a site.

    kinds : the kinds of site it binds.
    facts : names of the facts it needs; one that is None is unknown at compile time.
    holds : called with those facts.
    sentence : what is broken, with facts in braces.
    """

    kinds: Tuple[str, ...]
    facts: Tuple[str, ...]
    holds: Callable
    sentence: str

    def broken_by(self, facts):
        """The sentence of the breach, or None."""
        unknown = [name for name in self.facts if facts[name] is None]
        if unknown:
            return "%s not known at compile time" % " and ".join(name.replace("_", " ") for name in unknown)
        return None if self.holds(*(facts[name] for name in self.facts)) else self.sentence.format(**facts)


def _ours():
    return (
        Constraint(ALL, ("dtype",), lambda dtype: dtype == "float32", "dtype is {dtype}, the kernels compute in float32"),
        Constraint(CONVOLUTIONS, ("convdim",), lambda n: n == 2, "a convolution over {convdim} axes, the kernels have 2"),
        Constraint(CONVOLUTIONS, ("dilation",), lambda d: d == (1, 1), "filter_dilation is {dilation}, the kernels have none"),
        Constraint(CONVOLUTIONS, ("unshared",), lambda u: not u, "unshared filters, the kernels share them"),
        Constraint(CONVOLUTIONS, ("spread",), lambda spread: not spread,
                   "images or filters spread over larger logical shapes, which the kernels cannot do"),
        Constraint(POOLS, ("rank", "pooled_axes"), lambda rank, axes: (rank, axes) == (4, 2),
                   "pooling over {pooled_axes} of {rank} axes, the kernels pool 2 of 4"),
        Constraint(POOLS, ("window", "stride", "pad"), lambda *pairs: True, ""),  # they must be constants
        Constraint(POOLS, ("window", "stride"), lambda w, s: min(w + s) >= 1, "window {window}, stride {stride}"),
        Constraint(POOLS, ("window", "pad", "ceil_mode"),
                   lambda w, p, ceil: p == (0, 0) or (not ceil and p[0] < w[0] and p[1] < w[1]),
                   "pad {pad} with window {window}: Theano pads only with ignore_border=True and less than the window"),
        Constraint((AVG_POOL_GRADIENT,), ("mode", "pad"), lambda mode, pad: mode != "average_exc_pad" or pad == (0, 0),
                   "pad {pad} in mode '{mode}', of which Theano refuses the gradient"),
    )


def _original():
    return _ours() + (
        Constraint(CONVOLUTIONS, ("filter",), lambda f: f[0] == f[1], "filters of {filter}: the original takes square ones only"),
        Constraint(CONVOLUTIONS, ("stride",), lambda s: s[0] == s[1], "stride {stride}: the original has one for both axes"),
        Constraint(CONVOLUTIONS, ("pads",), lambda p: len(set(p)) == 1, "pads {pads}: the original has one for all sides"),
        Constraint(CONVOLUTIONS, ("stride", "filter"), lambda s, f: s[0] <= f[0],
                   "stride {stride} exceeds filter {filter}: pixels between would be skipped"),
        Constraint((FORWARD, IMAGE_GRADIENT), ("channels",), lambda c: c <= 3 or c % 2 == 0,
                   "{channels} channels: the original takes 1, 2, 3 or an even number, 2 colours a step"),
        Constraint((WEIGHT_GRADIENT,), ("channels",), lambda c: c <= 3 or c % 4 == 0,
                   "{channels} channels: the original's weight gradient takes 1, 2, 3 or a multiple of 4, 4 colours a thread"),
        Constraint(CONVOLUTIONS, ("filters",), lambda k: k % 16 == 0,
                   "{filters} filters: the original takes multiples of 16, its blocks' height"),
        Constraint(CONVOLUTIONS, ("filters", "groups"), lambda k, g: k % (16 * g) == 0,
                   "{filters} filters in {groups} groups: the original takes a multiple of 16 in each, its blocks' height"),
        Constraint((FORWARD,), ("channels", "groups"), lambda c, g: g == 1 or c % (2 * g) == 0,
                   "{channels} channels in {groups} groups: the original takes an even number in each, 2 colours a step"),
        Constraint((IMAGE_GRADIENT, WEIGHT_GRADIENT), ("channels", "groups"), lambda c, g: g == 1 or c % (4 * g) == 0,
                   "{channels} channels in {groups} groups: the original's gradients take a multiple of 4 in each, 4 "
                   "colours a thread"),
        Constraint(POOLS, ("image",), lambda n: n[0] == n[1], "images of {image}: the original takes square ones only"),
        Constraint(POOLS, ("window",), lambda w: w[0] == w[1], "windows of {window}: the original takes square ones only"),
        Constraint(POOLS, ("window", "stride"), lambda w, s: s[0] == s[1] and s[0] <= w[0],
                   "stride {stride} with window {window}: the original has one stride, at most the window"),
        Constraint(POOLS, ("window", "image"), lambda w, n: w[0] <= n[0], "window {window} exceeds image {image}"),
        Constraint((MAX_POOL_GRADIENT,), ("channels",), lambda c: c % 16 == 0,
                   "{channels} channels: the original's gradient takes multiples of 16, several filters a thread unchecked"),
        Constraint((AVG_POOL_GRADIENT,), ("channels",), lambda c: c % 16 == 0,
                   "{channels} channels: the original's gradient takes multiples of 16"),
        Constraint(AVG_POOLS, ("mode",), lambda mode: mode != "sum",
                   "mode is '{mode}': the original takes averages only"),
        Constraint(AVG_POOLS, ("mode", "pad"), lambda mode, pad: mode == "average_exc_pad" or pad == (0, 0),
                   "pad {pad} in mode '{mode}': the original counts the pixels inside the image"),
        Constraint((MAX_POOL_SECOND,), ("pooled_axes",), lambda n: False, "the original has no second derivative of pooling"),
    )


CONSTRAINTS = {"layoutopt": _ours(), "cuda_convnet": _original()}


def judge(kind, facts, constraints="layoutopt"):
    """The verdict on a site.

    Parameters
    ----------
    kind : str
        One of `ALL`.
    facts : dict
        What is known of the site; see `rewrites.sites`.
    constraints : {'layoutopt', 'cuda_convnet'}

    Raises
    ------
    ValueError
        If there is no such set.
    """
    if constraints not in CONSTRAINTS:
        raise ValueError("layoutopt.constraints is %r; it can be %s" % (constraints, " or ".join(sorted(CONSTRAINTS))))
    for constraint in CONSTRAINTS[constraints]:
        if kind in constraint.kinds:
            breach = constraint.broken_by(facts)
            if breach:
                return Verdict(False, breach)
    return Verdict(True, "fulfils every constraint of %s" % constraints)
