"""How a benchmarked process answers `cpu.py`: a number of steps on a line of stdin, their seconds on a line of stdout."""
import json
import os
import sys
import time


def serve(step):
    """Call `step()`, which returns the loss, as often as each line of stdin says, and print the times as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        seconds, loss = [], None
        for _ in range(int(line)):
            started = time.perf_counter()
            loss = float(step())
            seconds.append(time.perf_counter() - started)
        answers.write(json.dumps(dict(seconds=seconds, loss=loss)) + "\n")
        answers.flush()
