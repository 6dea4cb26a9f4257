"""A report as one HTML page that needs nothing else: its style, script and data stand in it."""
import html
import json
import os

from layoutopt.facts import document

from .layering import positions

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def to_html(reports):
    """The page on the functions of a program.

    Parameters
    ----------
    reports : list of layoutopt.Report
        At least one.

    Returns
    -------
    str
    """
    data = document(reports)
    data["functions"] = [named for i, facts in enumerate(data["functions"]) for named in _with_loops(facts, _name(facts, i))]
    for facts in data["functions"]:
        _place_nodes(facts)
    parts = {"css": _read("page.css"), "script": _read("page.js"), "data": _inert(json.dumps(data, allow_nan=False))}
    page = _read("page.html")
    for name, text in parts.items():
        page = page.replace("/*%s*/" % name, text)
    return page


def to_frame(report):
    """The page in a frame, for notebooks."""
    page = html.escape(to_html([report]), quote=True)
    return '<iframe srcdoc="%s" title="layoutopt" style="width: 100%%; height: 640px; border: 1px solid #888"></iframe>' % page


def _with_loops(facts, name):
    """A function and, as functions of their own, the steps of its loops."""
    yield dict(facts, name=name)
    for loop in facts["loops"]:
        yield from _with_loops(loop["report"], "each step of %s" % loop["name"])


def _name(facts, number):
    return facts["place"] or "function %d" % (number + 1)


def _place_nodes(facts):
    if facts["decided"]:
        nodes = facts["graph"]["nodes"]
        for node, (x, y) in zip(nodes, positions(len(nodes), facts["graph"]["edges"])):
            node["at"] = [round(x), round(y)]


def _inert(text):
    """JSON that holds nothing which could end the script element that it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name):
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()
