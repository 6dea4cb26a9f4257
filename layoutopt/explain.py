"""Reports on what the optimizer did, for people."""
from layoutopt.rewrites.record import milliseconds, recorded


class Report:
    """What became of each convolution and pooling of a function, and which conversions are left; `str` gives the text.

    Attributes
    ----------
    record : rewrites.record.Record, or None
        The facts; None if there are none.
    reason : str
        Why there are none.
    """

    def __init__(self, record, reason=""):
        self.record = record
        self.reason = reason

    def __str__(self):
        if self.record is None:
            return "layoutopt: nothing to report: " + self.reason
        return "\n".join(self._summary() + self._sites() + self._conversions())

    def _summary(self):
        r = self.record
        in_c01b = sum(site.layout == "c01b" for site in r.sites)
        lines = ["layoutopt: %d of %d convolutions and poolings in c01b" % (in_c01b, len(r.sites))]
        if not r.applied:
            lines.append("  the graph was left alone: no plan is cheaper than %s" % milliseconds(r.unchanged_seconds))
            return lines
        lines.append("  predicted: %s before, %s after; no plan can be below %s"
                     % tuple(map(milliseconds, (r.unchanged_seconds, r.planned_seconds, r.bound_seconds))))
        lines.append("  conversions: %d before, %d after" % (r.conversions_before, len(r.conversions)))
        return lines

    def _sites(self):
        lines = []
        for site in self.record.sites:
            times = milliseconds(site.bc01_seconds) + " in bc01" if site.bc01_seconds else ""
            if site.c01b_seconds is not None:
                times += ", %s in c01b" % milliseconds(site.c01b_seconds)
            lines.append("%-4s %-20s %s" % (site.layout, site.kind, site.sizes))
            lines.append("     %s" % "; ".join(part for part in (site.op, site.place, times) if part))
            if site.note:
                lines.append("     %s" % site.note)
            if site.layout == "bc01" or not site.sizes:
                lines.append("     %s" % site.reason)
        return lines

    def _conversions(self):
        return ["conversion to %s: %s, %s, from %s, for %s" % (c.to, c.value, _bytes(c.bytes), c.produced_by, c.needed_by)
                for c in self.record.conversions]


def _bytes(count):
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return "%.3g %s" % (count, unit)
        count /= 1000.0
    return "%.3g GB" % count


def explain(function):
    """What layoutopt did to a compiled function and why.

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
    return recorded(maker.fgraph) or Report(None, "the function has no convolution or pooling, was compiled without the flag "
                                            "optimizer_including=layoutopt, or is a copy of another (f.copy), which has it")
