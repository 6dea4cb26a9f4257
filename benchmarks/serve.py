"""How a benchmarked process answers `turns.py`: a number of steps on a line of stdin, their seconds on a line of stdout."""
import json
import os
import sys
import time

from resident import QUESTIONS

# Small enough that no network diverges on random images: of numbers that are not finite layoutopt computes a part twice.
LEARNING_RATE = 1e-5


def timed(step, steps):
    """Seconds of each of some steps by the host's clock, and the loss of the last."""
    seconds, loss = [], None
    for _ in range(steps):
        started = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - started)
    return dict(seconds=seconds, loss=None if loss is None else float(loss))


def serve(step=None, prepare=None, timed=timed):
    """Call `step()`, which returns the loss or None, as often as each line of stdin says, and print the times as JSON.

    A line that is a JSON object instead says what is measured next: ``prepare(**object)`` returns the new `step`. Another clock
    than the host's is another `timed`. A JSON string is one of the questions of `resident.py`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        task = json.loads(line)
        if isinstance(task, dict):
            step, answer = prepare(**task), {}
        elif isinstance(task, str):
            answer = QUESTIONS[task]()
        else:
            answer = timed(step, task)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
