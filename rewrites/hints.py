"""What would change the outcome: a site with one of its facts changed, as the cost model prices it."""
from .constraints import CONVOLUTIONS, judge
from .cost import ConvWork, PoolWork, winograd_tiles

WORTH = 0.05  # of a site's time has to be saved, or nothing is said
LANES = 16  # where the machine names no vectors: the original's blocks


def hints_of(site, layout, machine, constraints):
    """Sentences with predicted numbers, for sites whose sizes are known.

    Parameters
    ----------
    site : rewrites.sites.Site
    layout : {'bc01', 'c01b'}
        In which it runs.
    machine : Machine or GpuMachine
    constraints : str

    Returns
    -------
    tuple of str
    """
    if site.facts.get("groups") != 1:
        return ()
    now = _seconds(site.kind, site.facts, layout, machine)
    padded = _padded(site, "filters", machine, constraints)
    if now is None or padded is None or padded[1] > (1 - WORTH) * now:
        return ()
    return ("%d filters: pad to %d and this site would save %.3g ms a call" % (site.facts["filters"], padded[0],
                                                                              1e3 * (now - padded[1])),)


def hint_of_batch(sites, layouts, machine, constraints):
    """What batches that fill vectors would do to all sites of a graph together, in a sentence; '' if nothing, or if sizes are
    unknown."""
    batches = {site.facts.get("batch") for site in sites}
    batch = batches.pop() if len(batches) == 1 else None
    padded = [_padded(site, "batch", machine, constraints) for site in sites]
    now = [_seconds(site.kind, site.facts, layout, machine) for site, layout in zip(sites, layouts) if site.facts]
    if not batch or None in padded or None in now:
        return ""
    images, seconds = padded[0][0], sum(s for _, s in padded)
    if seconds / images > (1 - WORTH) * sum(now) / batch:
        return ""
    return "With batches of %d in place of %d the convolutions and poolings would take %.3g ms for %d images, not %.3g." % (
        images, batch, 1e3 * seconds, images, 1e3 * sum(now) * images / batch)


def _padded(site, name, machine, constraints):
    """(new number, seconds of the site with it in c01b), or None where the number fills vectors or the site would not qualify."""
    number, lanes = site.facts.get(name), getattr(machine, "lanes", LANES)
    if not number or number % lanes == 0:
        return None
    facts = dict(site.facts, **{name: -(-number // lanes) * lanes})
    if not judge(site.kind, facts, constraints).qualifies:
        return None
    return facts[name], _seconds(site.kind, facts, "c01b", machine)


def _seconds(kind, facts, layout, machine):
    """Predicted seconds of a site with these facts; None where one of its sizes is unknown."""
    work = _work(kind, facts)
    if work is None:
        return None
    of = {("bc01", True): "stock_conv_seconds", ("c01b", True): "c01b_conv_seconds",
          ("bc01", False): "stock_pool_seconds", ("c01b", False): "c01b_pool_seconds"}
    return getattr(machine, of[layout, kind in CONVOLUTIONS])(work)


def _work(kind, facts):
    names = ("batch", "channels", "image") + (("filters", "filter", "output") if kind in CONVOLUTIONS else ("window", "stride"))
    if any(facts.get(name) is None for name in names):
        return None
    batch, channels, (rows, columns) = facts["batch"], facts["channels"], facts["image"]
    stride = facts["stride"][0] * facts["stride"][1]
    if kind not in CONVOLUTIONS:
        window = facts["window"][0] * facts["window"][1]
        return PoolWork(kind, batch, channels * rows * columns, window / stride, 1 / stride)
    taps = max(1, channels // facts["groups"]) * facts["filter"][0] * facts["filter"][1]
    positions = facts["output"][0] * facts["output"][1]
    return ConvWork(kind, batch, channels, facts["filters"], taps, positions, rows * columns, stride, facts["groups"],
                    winograd_tiles(kind, facts["filter"], facts["stride"], facts["image"], facts["output"]))
