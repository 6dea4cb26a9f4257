"""Threads that call one function take turns.

A Theano function has one place for each argument and each value in between, so it is not made for two calls at once. Its C code
holds Python's lock from the first op to the last, though, so that programs get away with it, as a server does that predicts on
whichever thread a request comes in. Our kernels let other threads run meanwhile; the next call of the same function waits.

Functions that only share variables do not wait for each other.
"""
import functools
import os
import threading
from weakref import WeakKeyDictionary

from theano.compile import Function

_turns = WeakKeyDictionary()  # function -> what its calls hold


def register():
    """Let calls of functions take turns; a second call does nothing."""
    if not hasattr(Function.__call__, "takes_turns"):
        Function.__call__ = _taking_turns(Function.__call__)
        if hasattr(os, "register_at_fork"):  # a child has one thread, which waits for none of its parent's
            os.register_at_fork(after_in_child=_turns.clear)


def _taking_turns(call):
    @functools.wraps(call)
    def taking_turns(function, *arguments, **named):
        turn = _turns.get(function) or _turns.setdefault(function, threading.RLock())
        with turn:
            return call(function, *arguments, **named)

    taking_turns.takes_turns = True
    return taking_turns
