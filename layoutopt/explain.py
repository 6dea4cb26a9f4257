"""Reports on what the optimizer did, for people."""
import textwrap

from theano.scan_module.scan_op import Scan

from layoutopt.rewrites.follow import Followed
from layoutopt.rewrites.record import milliseconds, recorded
from layoutopt.rewrites.tidy import copies_left

from .facts import ends, to_dict, to_json
from .page import to_frame, to_html

WIDTH = 80  # columns of a terminal
_ROW = "%-53s %12s"
_INDENT = 5 * " "


class Report:
    """What became of each convolution and pooling of a function, and which conversions are left; `str` gives the text.

    Attributes
    ----------
    record : rewrites.record.Record, or None
        The facts; None if there are none.
    reason : str
        Why there are none; beside facts, why they are not of the device that was asked for.
    profiled : dict, or None
        Seconds of a call, by ("site" or "conversion", number in the record), of what could be told; None if the function was not
        compiled with profile=True, or not called yet.
    loops : list of (str, Report)
        Name and report of each loop (theano.scan) in the function; those of its step.
    copies : int, or None
        Contiguity copies that the function, in whole, may still make; None where it is not compiled yet.
    place : str
        Where the program compiled it, 'file:line'; '' where that is not known.
    """

    def __init__(self, record, reason="", profiled=None, loops=(), copies=None, place=""):
        self.record = record
        self.reason = reason
        self.profiled = profiled
        self.loops = list(loops)
        self.copies = copies
        self.place = place

    def to_dict(self):
        """The report as plain data (``layoutopt/page/report.schema.json``)."""
        return to_dict(self)

    def to_json(self):
        """The report as JSON, a str: a document with one function."""
        return to_json([self])

    def to_html(self):
        """The report as an HTML page that needs nothing else, a str."""
        return to_html([self])

    def _repr_html_(self):
        return to_frame(self)

    def __str__(self):
        if self.record is None:
            lines = ["layoutopt: nothing to report: " + self.reason]
        else:
            lines = self._summary() + self._sites() + self._conversions()
        return "\n".join(lines + ["In each step of %s:\n%s" % loop for loop in self.loops])

    def _summary(self):
        r = self.record
        in_c01b = sum(site.layout == "c01b" for site in r.sites)
        lines = ["layoutopt: %d of %d convolutions and poolings in c01b" % (in_c01b, len(r.sites))]
        lines += ["  " + self.reason] if self.reason else []
        lines += [] if self.copies is None else ["  contiguity copies left: %d" % self.copies]
        lines += textwrap.wrap(r.hint, WIDTH, initial_indent="  ", subsequent_indent="  ")
        if not r.applied:
            return lines + ["  the graph was left alone: no plan is cheaper than %s" % milliseconds(r.unchanged_seconds),
                            self._row("", "planned", "profiled")]
        planned = "planned: %s before, %s after; the proven lower bound, %s, is met" % tuple(
            map(milliseconds, (r.unchanged_seconds, r.planned_seconds, r.bound_seconds)))
        lines += textwrap.wrap(planned, WIDTH, initial_indent="  ", subsequent_indent="  ")
        return lines + ["  conversions: %d before, %d after" % (r.conversions_before, len(r.conversions)),
                        self._row("", "planned", "profiled")]

    def _row(self, text, planned, profiled):
        """A line of the table, which has its second column where there is a profile."""
        row = _ROW % (textwrap.shorten(text, 53, placeholder=" ..."), planned)
        return row if self.profiled is None else "%s %12s" % (row, profiled)

    def _times(self, planned, item):
        """The table's columns for ("site" or "conversion", number)."""
        known = self.profiled is not None and item in self.profiled
        return milliseconds(planned), milliseconds(self.profiled[item]) if known else "not profiled"

    def _sites(self):
        lines = []
        for number, site in enumerate(self.record.sites):
            seconds = site.c01b_seconds if site.layout == "c01b" and site.c01b_seconds is not None else site.bc01_seconds
            lines.append(self._row("%-4s %s" % (site.layout, site.kind), *self._times(seconds, ("site", number))))
            lines += _wrapped(site.sizes)
            lines += _wrapped("; ".join(part for part in (site.op, site.place, _both(site)) if part))
            lines += _wrapped(site.note)
            if site.layout == "bc01" or not site.sizes:
                lines += _wrapped(site.reason)
            for hint in site.hints:
                lines += _wrapped(hint)
        for found in self.record.recognised:
            lines.append(self._row("%-4s %s" % (found.layout, found.op), milliseconds(found.seconds), "not profiled"))
            lines += _wrapped("; ".join(filter(None, (found.place, found.note))))
        return lines

    def _conversions(self):
        lines = []
        for number, c in enumerate(self.record.conversions):
            times = self._times(c.seconds, ("conversion", number))
            lines.append(self._row("conversion to %s: %s" % (c.to, c.value), *times))
            lines += _wrapped("%s, from %s, for %s" % (_bytes(c.bytes), c.produced_by, c.needed_by))
            for end in c.ends:
                lines += _wrapped("the layout ends at " + end)
        for end in ends(self.record):
            lines += _wrapped("what ended it cost %s: %s" % (milliseconds(end["seconds"]), end["op"]))
        return lines


def _both(site):
    """What a site takes in either layout, in words."""
    if not site.bc01_seconds:
        return ""
    times = "%s %s in bc01" % ("measured" if site.timed else "predicted", milliseconds(site.bc01_seconds))
    return times if site.c01b_seconds is None else "%s, %s in c01b" % (times, milliseconds(site.c01b_seconds))


def _wrapped(text):
    return textwrap.wrap(text, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)


def _bytes(count):
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return "%.3g %s" % (count, unit)
        count /= 1000.0
    return "%.3g GB" % count


def profiled_seconds(fgraph, profile):
    """Seconds of a call by site and conversion, from Theano's profile of a function; None if there is none."""
    followed = next((feature for feature in fgraph._features if isinstance(feature, Followed)), None)
    if followed is None or not getattr(profile, "apply_time", None):
        return None
    calls = profile.apply_callcount
    return {item: profile.apply_time[node] / calls[node] for item, node in followed.nodes().items() if calls.get(node)}


def explain(function):
    """What layoutopt did to a compiled function and why; of a function that was compiled with profile=True and called, also how
    long its convolutions, poolings and conversions took.

    Parameters
    ----------
    function : theano.compile.Function

    Returns
    -------
    Report
        Print it.

    Raises
    ------
    TypeError
        If `function` is not a compiled Theano function.
    """
    maker = getattr(function, "maker", None)
    if maker is None or not hasattr(maker, "fgraph"):
        raise TypeError("explain takes a compiled Theano function, got %s" % type(function).__name__)
    loops = [(node.op.name, explain(node.op.fn)) for node in maker.fgraph.toposort()
             if isinstance(node.op, Scan) and hasattr(node.op, "fn")]
    report = recorded(maker.fgraph)
    if report is None:
        return Report(None, "the function has no convolution or pooling, was compiled without the flag "
                            "optimizer_including=layoutopt, or was unpickled or copied without its inputs", loops=loops)
    profiled = profiled_seconds(maker.fgraph, getattr(function, "profile", None))
    return Report(report.record, report.reason, profiled, loops, copies_left(maker.fgraph), report.place)
