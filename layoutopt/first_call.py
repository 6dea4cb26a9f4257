"""layoutopt.verify=first_call: each rewritten function is verified when it is first called, with the arguments of that call."""
import functools
import logging

from theano.compile import Function

from layoutopt.rewrites.record import recorded

from .reference import NotComparable
from .verify import verify

logger = logging.getLogger("layoutopt")


def watch():
    """Let calls of functions verify what is to be verified; a second call does nothing."""
    if not hasattr(Function.__call__, "verifies"):
        Function.__call__ = _verifying(Function.__call__)


def _verifying(call):
    @functools.wraps(call)
    def verifying(function, *arguments, **named):
        if not hasattr(function, "layoutopt_verified") and "output_subset" not in named:
            function.layoutopt_verified = True  # before: verifying calls it
            _verify(function, arguments, named)
        return call(function, *arguments, **named)

    verifying.verifies = True
    return verifying


def _verify(function, arguments, named):
    report = recorded(function.maker.fgraph)
    if report is None or report.record is None or not report.record.applied:
        return
    try:
        verify(function, *arguments, **named)
    except NotComparable as reason:
        logger.warning("layoutopt: not verified: %s", reason)
