"""Processes that are measured in turns: each does a few steps when it is asked to, so that a slower minute of a shared
machine slows all of them. `serve.py` is the other end.
"""
import json
import os
import subprocess
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
# Keeps freed memory in the process: PyTorch's eager mode allocates every result and would mostly pay page faults.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296",
               "MALLOC_TOP_PAD_": "268435456"}


class Variant:
    """A process that trains a network and times steps when asked to.

    Parameters
    ----------
    script : str
        In this folder; it prints 'ready' and then serves.
    environment : dict
        Variables to set.
    arguments : tuple
        The script's.
    python : str
        The interpreter.
    """

    def __init__(self, script, environment, arguments=(), python=sys.executable):
        command = [python, os.path.join(HERE, script), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **environment))
        if self.process.stdout.readline().strip() != "ready":
            sys.exit("benchmark: %s ended before it was ready" % script)

    def ask(self, task):
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def prepare(self, **task):
        """Say what is to be timed, where the script serves more than one thing."""
        self.ask(task)

    def seconds(self, steps):
        """The median time of a step over `steps` of them, and the loss of the last, which has to be finite."""
        answer = self.ask(steps)
        if answer["loss"] is not None and not np.isfinite(answer["loss"]):
            sys.exit("benchmark: the loss is %s" % answer["loss"])
        return float(np.median(answer["seconds"])), answer["loss"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def theano_flags(*more):
    given = os.environ.get("THEANO_FLAGS", "").strip(",")
    return {"THEANO_FLAGS": ",".join(filter(None, [given, "floatX=float32", "openmp=True", *more]))}


def in_turns(running, turns, steps):
    """Seconds of a step, by variant: a list over the turns.

    Parameters
    ----------
    running : dict of str: Variant
        Warm: the first calls pay for page faults and the start of threads.
    """
    times = {name: [] for name in running}
    for _ in range(turns):
        for name, variant in running.items():
            times[name].append(variant.seconds(steps)[0])
    return times


def ratios(times):
    """How many times faster layoutopt is than each other variant: (median, least, most) over the turns."""
    ours = np.array(times["layoutopt"])
    others = {name: np.array(seconds) / ours for name, seconds in times.items() if name != "layoutopt"}
    return {name: (float(np.median(r)), float(r.min()), float(r.max())) for name, r in others.items()}
