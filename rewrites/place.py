"""Where in the user's program something was written: the last line outside of Theano and layoutopt."""
import os
import sys

import theano

# In a checkout the three folders of layoutopt stand side by side in a root that may hold programs, too.
_LIBRARIES = tuple(os.path.dirname(os.path.abspath(module.__file__)) + os.sep
                   for module in (theano, sys.modules["layoutopt"], sys.modules["layoutopt.kernels"],
                                  sys.modules["layoutopt.rewrites"]))


def _is_users(path):
    return not path.startswith(_LIBRARIES) and not path.startswith("<frozen")


def place_of(variable):
    """'file:line' of the program's statement that made a variable, from Theano's trace; '' if it kept none.

    A gradient may have none: Theano keeps the last few frames, and its own fill these.
    """
    for trace in getattr(variable.tag, "trace", None) or ():
        users = [frame for frame in trace if frame and _is_users(frame[0])]
        if users:
            return _words(*users[-1][:2])
    return ""


def caller():
    """'file:line' of the program's statement that is being carried out, as of its call of theano.function; '' where none is."""
    frame = sys._getframe()
    while frame is not None and not _is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else _words(frame.f_code.co_filename, frame.f_lineno)


def places_of(sites):
    """The places of sites, a list; a gradient has that of the op it is the gradient of, with which it shares an operand."""
    forward = {}
    for site in sites:
        if not _is_gradient(site):
            for x in _images(site.node.inputs):
                forward.setdefault((_family(site), x), place_of(site.node.outputs[0]))
    return [_place(site, forward) for site in sites]


def _place(site, forward):
    found = (forward.get((_family(site), x)) for x in _images(site.node.inputs) if _is_gradient(site))
    return next(filter(None, found), place_of(site.node.outputs[0]))


def _is_gradient(site):
    return "gradient" in site.kind or "derivative" in site.kind


def _family(site):
    return "pooling" in site.kind


def _images(variables):
    return [x for x in variables if getattr(x, "ndim", 0) == 4]


def _words(path, line):
    return "%s:%d" % (os.path.basename(path), line)
