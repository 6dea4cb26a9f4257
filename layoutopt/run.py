"""python -m layoutopt run: an unedited program under layoutopt, for people whose THEANO_FLAGS are managed elsewhere."""
import argparse
import os
import sys
import time

from tqdm import tqdm

from . import program


def add_arguments(parser):
    parser.add_argument("--compare", action="store_true", help="run it without layoutopt, too, and print both times")
    parser.add_argument("--report", metavar="FILE", help="write a report on its functions: .html, .json, or text")
    parser.add_argument("script", help="the program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")


def run(args):
    """The command; returns the exit status, the program's own."""
    flags = {}
    try:
        program.check(args.script)
        if args.report:
            program.check_writable(args.report)
            flags["report"] = os.path.abspath(args.report)
    except program.CannotRun as reason:
        print("layoutopt: %s" % reason, file=sys.stderr)
        return reason.status
    if args.compare:
        return _compare(args, flags)
    if not flags:
        sys.stdout.flush()
        os.execve(sys.executable, program.command(args.script, args.arguments), program.environment())
    before = _written(args.report)
    status = program.run(args.script, args.arguments, program.environment(**flags))
    if _written(args.report) == before:
        print("layoutopt: no report: %s compiled no function with a convolution or pooling" % args.script, file=sys.stderr)
    return status


def _written(path):
    """What changes when a file is written."""
    return os.stat(path)[6:] if os.path.exists(path) else None


def _compare(args, flags):
    runs = (("without layoutopt", program.environment(False)), ("with layoutopt", program.environment(**flags)))
    seconds = []
    for name, environ in tqdm(runs, desc="layoutopt compares", unit="run", disable=None, leave=False):
        started = time.perf_counter()
        status = program.run(args.script, args.arguments, environ)
        seconds.append(time.perf_counter() - started)
        if status:
            print("layoutopt: %s failed %s, with exit status %d" % (args.script, name, status), file=sys.stderr)
            return status
    print("without layoutopt %.2f s, with layoutopt %.2f s, compilation included: %.2f times as fast"
          % (*seconds, seconds[0] / seconds[1]))
    return 0
