"""Threads that call one function take turns.

A Theano function has one place for each argument and each value in between, so it is not made for two calls at once. Its C code
holds Python's lock from the first op to the last, though, so that programs get away with it, as a server does that predicts on
whichever thread a request comes in. Our kernels let other threads run meanwhile; the next call of the same function waits.

Functions that only share variables do not wait for each other.

Before a function's first call its weights are stored as it will leave them (`rewrites.storage`).
"""
import functools
import os
import threading
from weakref import WeakSet

from theano.compile import Function

from layoutopt.rewrites.storage import store_now

_functions = WeakSet()  # those that were called


def register():
    """Let calls of functions take turns; a second call does nothing."""
    if not hasattr(Function.__call__, "takes_turns"):
        Function.__call__ = _taking_turns(Function.__call__)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forget_turns)


def _taking_turns(call):
    @functools.wraps(call)
    def taking_turns(function, *arguments, **named):
        try:
            turn = function.layoutopt_turn
        except AttributeError:
            turn = _first_turn(function)
        with turn:
            return call(function, *arguments, **named)

    taking_turns.takes_turns = True
    return taking_turns


def _first_turn(function):
    _functions.add(function)
    turn = function.__dict__.setdefault("layoutopt_turn", threading.RLock())
    with turn:  # for a thread that was faster may be at its call
        store_now(function.maker.fgraph)
    return turn


def _forget_turns():
    """A forked child has one thread, which must not wait for one of its parent's."""
    for function in list(_functions):
        function.__dict__.pop("layoutopt_turn", None)
