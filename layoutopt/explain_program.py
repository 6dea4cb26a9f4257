"""python -m layoutopt explain: runs a program and says what became of the functions that it compiled."""
import argparse
import json
import os
import sys
import tempfile

from . import program
from .facts import from_dict, to_json
from .page import to_html


def _text(reports):
    return "\n\n".join("%s\n%s" % (report.place, report) if report.place else str(report) for report in reports)


def add_arguments(parser):
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const=to_json, help="as JSON")
    form.add_argument("--html", dest="form", action="store_const", const=to_html, help="as an HTML page")
    parser.set_defaults(form=_text)
    parser.add_argument("--profile", action="store_true", help="with what the program's calls took")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: stdout)")
    parser.add_argument("script", help="the program; what it prints goes to stderr")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")


def run(args):
    """The command; returns the exit status: the program's own, 1 if there is nothing to explain."""
    try:
        program.check(args.script)
        if args.output:
            program.check_writable(args.output)
        status, reports = _run(args.script, args.arguments, args.profile)
        _print(args, status, reports)
    except program.CannotRun as reason:
        print("layoutopt: %s" % reason, file=sys.stderr)
        return reason.status
    return status


def _run(script, arguments, profile):
    """The program's exit status, and the reports on its functions."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "report.json")
        status = program.run(script, arguments, program.environment(profile=profile, report=path), stdout=2)
        if not os.path.exists(path):
            return status, []
        with open(path, encoding="utf-8") as file:
            return status, [from_dict(facts) for facts in json.load(file)["functions"]]


def _print(args, status, reports):
    if status:
        print("layoutopt: %s failed with exit status %d; this is what it had compiled%s"
              % (args.script, status, "" if reports else ": nothing with a convolution or pooling"), file=sys.stderr)
    elif not reports:
        raise program.CannotRun("%s compiled no function with a convolution or pooling" % args.script, 1)
    if reports and args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(args.form(reports) + "\n")
    elif reports:
        print(args.form(reports))
