"""The file of layoutopt.report: text is appended; .json and .html hold all functions of this process, and are written anew with
each, and once more at its end where Theano profiles them.
"""
import atexit
import sys

from layoutopt.rewrites.tidy import copies_left

from .explain import profiled_seconds
from .facts import to_json
from .page import to_html

_FORMATS = {".json": to_json, ".html": to_html}

_reports = {}  # file -> those that are in it
_refused = set()  # files that could not be written, which is said once
_profiled = []  # (report, graph)


def write(report, target, fgraph=None):
    """Put a report into a file, or on stderr for '-'; a file that cannot be written must not stop the program.

    Parameters
    ----------
    report : layoutopt.Report
    target : str
        The flag ``layoutopt.report``.
    fgraph : theano.gof.FunctionGraph, optional
        What it is about.
    """
    if target and getattr(fgraph, "profile", None):
        if not _profiled:
            atexit.register(_write_profiled)
        _profiled.append((report, fgraph))
    if target == "-":
        print(report, file=sys.stderr)
    elif target:
        problem = save(report, target)
        if problem and target not in _refused:
            _refused.add(target)
            print("layoutopt: " + problem, file=sys.stderr)


def save(report, target):
    """Add a report to a file, whose suffix says in which format; returns why that failed in a sentence, or ''."""
    reports = _reports.setdefault(target, [])
    reports.append(report)
    form = _format(target)
    try:
        with open(target, "w" if form else "a", encoding="utf-8") as file:
            file.write(form(reports) if form else "%s\n" % report)
    except OSError as problem:
        return "no report in %s: %s" % (target, problem.strerror)
    return ""


def _format(target):
    return next((form for suffix, form in _FORMATS.items() if target.lower().endswith(suffix)), None)


def _write_profiled():
    """Write the files that are written anew once more, with what Theano measured meanwhile."""
    for report, fgraph in _profiled:
        report.profiled, report.copies = profiled_seconds(fgraph, fgraph.profile), copies_left(fgraph)
    for target, reports in _reports.items():
        if _format(target):
            save(reports.pop(), target)
