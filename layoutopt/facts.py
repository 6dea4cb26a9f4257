"""A report as JSON, and back: what ``layoutopt/page/report.schema.json`` describes."""
import json
import os

from layoutopt.rewrites.drawing import Drawing, DrawnNode
from layoutopt.rewrites.record import ConversionRecord, RecognisedRecord, Record, SiteRecord

VERSION = 1
SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page", "report.schema.json")

# Fields of the records that stand in the JSON under their own names; the rest are told in words below.
_TOTALS = ("applied", "conversions_before", "unchanged_seconds", "planned_seconds", "bound_seconds", "hint")


def to_dict(report):
    """A `Report` as plain data.

    Parameters
    ----------
    report : layoutopt.Report

    Returns
    -------
    dict
    """
    loops = [dict(name=str(name), report=to_dict(inner)) for name, inner in report.loops]
    facts = dict(place=report.place, reason=report.reason, copies=report.copies, loops=loops,
                 profiled=report.profiled is not None)
    if report.record is None:
        return dict(facts, decided=False)
    r, profiled = report.record, report.profiled or {}
    return dict(
        facts, decided=True, **{name: getattr(r, name) for name in _TOTALS},
        sites=[dict(_plain(site), profiled_seconds=profiled.get(("site", i))) for i, site in enumerate(r.sites)],
        conversions=[dict(_plain(c), profiled_seconds=profiled.get(("conversion", i))) for i, c in enumerate(r.conversions)],
        recognised=[_plain(found) for found in r.recognised], ends=ends(r),
        graph=dict(nodes=[_plain(node) for node in r.drawing.nodes], edges=[list(edge) for edge in r.drawing.edges]))


def ends(record):
    """What ended c01b, the dearest first: {'op', 'seconds'}, the seconds of all conversions for which it is a reason."""
    seconds = {}
    for conversion in record.conversions:
        for end in conversion.ends:
            seconds[end] = seconds.get(end, 0.0) + conversion.seconds
    return [dict(op=op, seconds=seconds[op]) for op in sorted(seconds, key=lambda op: -seconds[op])]


def from_dict(facts):
    """The `Report` that `to_dict` made `facts` of."""
    from .explain import Report

    loops = [(loop["name"], from_dict(loop["report"])) for loop in facts["loops"]]
    if not facts["decided"]:
        return Report(None, facts["reason"], loops=loops, place=facts["place"])
    profiled = {(kind, i): item["profiled_seconds"] for kind in ("site", "conversion") for i, item in enumerate(facts[kind + "s"])
                if item["profiled_seconds"] is not None}
    drawing = Drawing([DrawnNode(**node) for node in facts["graph"]["nodes"]], [tuple(edge) for edge in facts["graph"]["edges"]])
    record = Record([_record(SiteRecord, site) for site in facts["sites"]],
                    [_record(ConversionRecord, c) for c in facts["conversions"]], drawing=drawing,
                    recognised=tuple(RecognisedRecord(**found) for found in facts.get("recognised", ())),
                    **{name: facts[name] for name in _TOTALS})
    return Report(record, facts["reason"], profiled if facts["profiled"] else None, loops, facts["copies"], facts["place"])


def _record(record, fields):
    return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
                     if name != "profiled_seconds"})


def _plain(record):
    """A named tuple of plain data as a dict that JSON gives back as it is."""
    return json.loads(json.dumps(record._asdict(), default=int))


def document(reports):
    """Reports on the functions of a program as one JSON document, a dict."""
    return dict(layoutopt_report=VERSION, functions=[to_dict(report) for report in reports])


def to_json(reports):
    """`document` as text."""
    return json.dumps(document(reports), indent=1, allow_nan=False)
