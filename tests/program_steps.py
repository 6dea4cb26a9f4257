"""Random programs, for hypothesis: `programs()` draws them step by step, and so makes what fails shorter."""
import re

from hypothesis import strategies as st

import program_carriers as carriers
import program_sites as sites
from program_draft import Draft
from programs import Program

BATCHES = (2, 3, 5, 1, 4, 7, 8, 16, 17, 20)

# How often steps are wanted, beside each other.
STEPS = (8 * (sites.convolution, sites.layer) + 4 * (sites.pooling, carriers.unary, carriers.binary)
         + 2 * (sites.image_gradient, carriers.reshape, carriers.part, carriers.join, carriers.dimshuffle, carriers.reduction)
         + (sites.convolution_by_hand, sites.weight_gradient, sites.double_precision) + carriers.RARE)


def gradients(d, outputs):
    """Gradients of a cost with respect to weights, inputs and values on the way."""
    terms = [d.one_of("T.sqr({0}).sum()", "{0}.sum()", "(T.clip({0}, -3, 3) * {0}).sum()").format(v.name) for v in outputs]
    d.lines.append("cost = " + " + ".join(terms))
    among = [v for v in d.weights + d.inputs + d.values if v.dtype == "float32"]
    wrt = d.draw(st.lists(st.sampled_from(among), min_size=1, max_size=4, unique=True))
    constant = "[%s]" % d.pick(1, 2, 3, 4, 5).name if d.chance(5) else "None"
    d.lines.append("gradients = T.grad(cost, [%s], consider_constant=%s, disconnected_inputs='ignore')"
                   % (", ".join(v.name for v in wrt), constant))
    d.lines.append("output(%s)" % d.one_of("*gradients", "cost, *gradients"))
    if d.chance(8):
        d.lines.append("output(*T.grad(sum(T.sqr(g).sum() for g in gradients), [%s], disconnected_inputs='ignore'))"
                       % wrt[0].name)
    return wrt


def updates(d, wrt):
    for i, v in enumerate(wrt):
        if v in d.weights and d.chance(2):
            d.lines.append("update(%s, %s - T.clip(gradients[%d], -1, 1))" % (v.name, v.name, i))
    for v in d.weights[:2]:
        if v not in wrt and d.chance(6):
            d.lines.append("update(%s, %s)" % (v.name, d.one_of("{0} * -1", "{0}[::-1] + 0", "T.maximum({0}, 0)").format(v.name)))


@st.composite
def programs(draw):
    """Strategy: a `Program`."""
    d = Draft(draw)
    batch = d.one_of(*BATCHES)
    d.others = (d.one_of(*BATCHES), d.one_of(0, 0, 1), d.one_of(0, 0, 2)) if d.chance(2) else None
    for _ in range(1 + d.chance(5)):
        d.given((batch, d.one_of(3, 1, 2, 4), d.one_of(6, 5, 7, 8), d.one_of(5, 6, 7, 9)), changes=True)
    sites.convolution(d)
    for _ in range(d.number(*d.one_of((0, 10), (8, 18)))):
        d.one_of(*STEPS)(d)
    used = set(re.findall("[a-z]+[0-9]+", " ".join(line.partition("=")[2] for line in d.lines)))
    ends = [v for v in d.values[:-1] if v.name not in used and not d.chance(5)]
    outputs = {v.name: v for v in ends + [d.values[-1]] + ([d.pick(1, 2, 3, 4, 5)] if d.chance(3) else [])}
    d.lines.append("output(%s)" % ", ".join(outputs))
    if d.chance(2):
        updates(d, gradients(d, list(outputs.values())))
    costs = d.one_of("c01b", "c01b", "model", str(d.number(0, 99)), str(d.number(0, 99)))
    return Program(costs, tuple(d.lines))
