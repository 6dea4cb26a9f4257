"""The settings, as Theano flags: THEANO_FLAGS=layoutopt.batch=32,... or a [layoutopt] section of .theanorc.

Theano complains of flags that it does not know where they are its own; of ours, none of which it knows, we do.
"""
import difflib
import logging

import theano
from theano.configparser import (THEANO_FLAGS_DICT, AddConfigVar, EnumStr, IntParam, StrParam, fetch_val_for_key,
                                 theano_cfg)

from layoutopt.kernels.base import SIMD_LANES, WINOGRAD_TILES
from layoutopt.rewrites.constraints import CONSTRAINTS

logger = logging.getLogger("layoutopt")

_FLAGS = (
    ("constraints",
     "What a convolution or pooling must fulfil: 'layoutopt', what the kernels can do, or 'cuda_convnet', the original set.",
     EnumStr("layoutopt", *sorted(set(CONSTRAINTS) - {"layoutopt"}))),
    ("batch", "Images in a minibatch, for predicting costs, where the graph does not say.", IntParam(128, lambda n: n > 0)),
    ("cost",
     "Where the seconds come from that plans rest on: 'model', predicted; 'measure', each convolution, pooling and conversion is "
     "timed when it is first met, and the times are kept in the user's cache directory.",
     EnumStr("model", "measure")),
    ("simd", "Vectors of the CPU kernels: what the compiler finds on this machine, or a narrower kind.",
     EnumStr("auto", *sorted(set(SIMD_LANES) - {"auto"}))),
    ("winograd",
     "Winograd's algorithm for 3 x 3, 5 x 5 and 7 x 7 filters, and those that a stride cuts to such, where it pays: 'f2', no less "
     "accurate than a direct kernel; "
     "'f4', also in tiles of 4 x 4, for 3 x 3 filters some 6 times less accurate; 'off', not at all.",
     EnumStr("f2", *sorted(set(WINOGRAD_TILES) - {"f2"}))),
    ("memory",
     "'keep': malloc keeps freed memory for the next call, from the first function that is rewritten on; 'system': it does "
     "as it would.",
     EnumStr("keep", "system")),
    ("precision",
     "Products of the GPU's convolutions: 'float32', or 'tf32', which rounds factors to 10 bits where the GPU is faster that "
     "way.",
     EnumStr("float32", "tf32")),
    ("partial_sum",
     "Output positions that a GPU adds up in one partial sum of a weight gradient: 'auto', as many as is fast; a number; "
     "'None', all.",
     StrParam("auto", lambda value: value in ("auto", "None") or (value.isdigit() and int(value) > 0))),
    ("workspace", "Megabytes of GPU memory that a convolution may use while it runs, besides its output.",
     IntParam(256, lambda n: n >= 0)),
    ("report",
     "File to which a report on every compiled function with a convolution or pooling is appended, as text; a .json or .html "
     "file is written anew, with all of the process's functions; '-': stderr.",
     StrParam("")),
    ("verify",
     "'first_call': the first call of each rewritten function is compared with the same function compiled without layoutopt, and "
     "a difference that rounding does not explain raises LayoutMismatch; 'no': none is.",
     EnumStr("no", "first_call")),
)


def names():
    """The names of all flags, without 'layoutopt.'."""
    return [name for name, _, _ in _FLAGS]


# What a flag can be, where its parameter does not name all its values.
_CAN_BE = {"batch": "a whole number of at least 1", "workspace": "a whole number of at least 0",
           "partial_sum": "auto, None, or a whole number of at least 1"}


def register():
    """Make the flags known to Theano, and say which of those set are none; a second call does nothing.

    Raises
    ------
    ValueError
        If the user set one to what it cannot be; then none is known, and a second call raises it again.
    """
    if hasattr(theano.config, "layoutopt"):
        return
    for name, _, parameter in _FLAGS:
        _check(name, parameter)
    for name, doc, parameter in _FLAGS:
        AddConfigVar("layoutopt." + name, doc, parameter, in_c_key=False)
    for complaint in complaints(_set_by_user()):
        logger.warning("layoutopt: %s", complaint)


def _check(name, parameter):
    parameter.fullname = "layoutopt." + name  # which Theano's own complaint takes for given
    try:
        value = fetch_val_for_key(parameter.fullname)
        parameter.filter(value)
    except KeyError:
        pass  # not set
    except ValueError:
        can_be = _CAN_BE.get(name) or ", ".join(parameter.all)
        raise ValueError("%s is set to %r; it can be %s" % (parameter.fullname, value, can_be)) from None


def _set_by_user():
    """All names that the user set that may be meant for us, as (section, name) pairs; the section of THEANO_FLAGS is ''."""
    pairs = [("", key) for key in THEANO_FLAGS_DICT if key.startswith("layoutopt.")]
    for section, prefix in (("layoutopt", ""), ("global", "layoutopt.")):
        if theano_cfg.has_section(section):
            own = set(theano_cfg.options(section)) - set(theano_cfg.defaults())
            pairs += [(section, key) for key in sorted(own) if key.startswith(prefix)]
    return pairs


def complaints(pairs):
    """A sentence about each flag that is none, or has no effect where it is.

    Parameters
    ----------
    pairs : list of (str, str)
        See `_set_by_user`.
    """
    for section, key in pairs:
        name = key if section == "layoutopt" else key[len("layoutopt."):]
        near = difflib.get_close_matches(name.lower(), names(), 1)
        if name not in names():
            meant = "is layoutopt.%s meant?" % near[0] if near else "there are %s" % ", ".join(names())
            yield "there is no flag layoutopt.%s: %s" % (name, meant)
        elif section == "global":
            yield "%s has no effect in the section [global]: put %s into a section [layoutopt]" % (key, name)
