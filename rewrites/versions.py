"""What a node can be in a plan: its bc01 version, as it stands, and perhaps a c01b version.

One `Version` is one declarative description of an op in one layout: what it needs of each operand, what it gives, what it
costs and how it is built. The planner reads the first three, the rewriter the last; a generated test builds the version and
evaluates it beside the original. Rules (`rewrites.carriers`, `rewrites.sites`) make versions; nothing else knows ops.
"""
from typing import Callable, NamedTuple, Optional, Tuple

from .layout import BC01, C01B, EITHER


class Version(NamedTuple):
    """An op in one layout.

    needs : per input BC01, C01B or EITHER.
    gives : per output BC01 or C01B.
    seconds : predicted time of one call.
    build : (node, inputs, layouts) -> outputs. `inputs` are in the layouts needed; `layouts` names each one's, which
        matters where the need is EITHER. None: the node itself serves, its inputs replaced.
    """

    needs: Tuple[str, ...]
    gives: Tuple[str, ...]
    seconds: float = 0.0
    build: Optional[Callable] = None


class Choice(NamedTuple):
    """A node's versions; without a c01b one the node stays as it is."""

    bc01: Version
    c01b: Optional[Version] = None

    def version(self, layout):
        return self.c01b if layout == C01B else self.bc01


def fixed(node, seconds=0.0):
    """The choice of a node about which nothing is known: everything in bc01."""
    return Choice(as_written(node, seconds))


def as_written(node, seconds=0.0):
    """The bc01 version of a node that is kept as it is."""
    return Version((BC01,) * len(node.inputs), (BC01,) * len(node.outputs), seconds)


def rotated_rank(variable):
    """C01B for values in which the layouts differ (rank 2 and up), BC01 for the others."""
    return C01B if variable.ndim >= 2 else BC01


__all__ = ["BC01", "C01B", "EITHER", "Choice", "Version", "as_written", "fixed", "rotated_rank"]
