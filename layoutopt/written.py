"""The file of layoutopt.report: text is appended; .json and .html hold all functions of this process, and are written anew with each."""
import sys

from .facts import to_json
from .page import to_html

_FORMATS = {".json": to_json, ".html": to_html}

_reports = {}  # file -> those that are in it


def write(report, target):
    """Put a report into a file, or on stderr for '-'; a file that cannot be written must not stop the program.

    Parameters
    ----------
    report : layoutopt.Report
    target : str
        The flag ``layoutopt.report``.
    """
    if target == "-":
        print(report, file=sys.stderr)
    elif target:
        problem = save(report, target)
        if problem:
            print("layoutopt: " + problem, file=sys.stderr)


def save(report, target):
    """Add a report to a file, whose suffix says in which format; returns why that failed in a sentence, or ''."""
    reports = _reports.setdefault(target, [])
    reports.append(report)
    form = next((form for suffix, form in _FORMATS.items() if target.lower().endswith(suffix)), None)
    try:
        with open(target, "w" if form else "a", encoding="utf-8") as file:
            file.write(form(reports) if form else "%s\n" % report)
    except OSError as problem:
        return "no report in %s: %s" % (target, problem.strerror)
    return ""
