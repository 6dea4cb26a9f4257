"""The HTML page, in a real browser: what it shows, and what clicks and keys do."""
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile import In, Out
from theano.compile.function_module import std_fgraph
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

from layoutopt.explain import Report
from layoutopt.page import to_html
from layoutopt.page.layering import HEIGHT, WIDTH, positions
from layoutopt.rewrites.drawing import CONVERSION, SITE, Drawing
from layoutopt.rewrites.record import recorded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to show the page in (apt install chromium)")
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --virtual-time-budget=5000 --window-size=1200,800").split()


@pytest.fixture(scope="module")
def report():
    """Of a training graph that is optimized, and not compiled."""
    x, w = tt.TensorType("float32", (False,) * 4)("</script><b>images"), theano.shared(np.ones((12, 3, 5, 5), "float32"), "filters")
    h = tt.tanh(pool_2d(conv2d(x, w, input_shape=(20, 3, 28, 28)), (2, 2), ignore_border=True))
    graph, _ = std_fgraph([In(x), In(w)], [Out(h), Out(tt.grad(h.sum(), w))])
    theano.Mode("py", "fast_run").including("layoutopt").optimizer.optimize(graph)
    return recorded(graph)


@pytest.fixture(scope="module")
def large(report):
    """The same report with a graph of 1,000 nodes: copies of its own, one after the other."""
    drawing, count = report.record.drawing, len(report.record.drawing.nodes)
    nodes, edges = [], []
    for first in range(0, 1000, count):
        nodes += drawing.nodes
        edges += [(a + first, b + first) for a, b in drawing.edges] + ([(first - 1, first + count // 2)] if first else [])
    return Report(report.record._replace(drawing=Drawing(nodes, edges)))


# In the browser: collects facts by name, and leaves them where --dump-dom shows them.
DRIVER = """<script>
const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const at = node => { const box = node.querySelector("rect").getBoundingClientRect();
                     return document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2); };
const details = () => document.getElementById("details").textContent;
const inView = node => { const box = node.getBoundingClientRect();
                         return box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight; };
const all = selector => [...document.querySelectorAll(selector)];
const facts = {};
try { %s } catch (error) { facts.error = String(error); }
document.body.append(Object.assign(document.createElement("pre"), {id: "facts", textContent: JSON.stringify(facts)}));
</script></body>"""


def browse(page, tmp_path, steps, *flags):
    """The facts that a driver's steps found on a page."""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", DRIVER % steps), encoding="utf-8")
    done = subprocess.run([CHROMIUM, *FLAGS, *flags, "--user-data-dir=%s" % (tmp_path / "profile"), "--dump-dom", path.as_uri()],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, timeout=120, check=True)
    facts = json.loads(html.unescape(re.search(r'<pre id="facts">(.*?)</pre>', done.stdout, re.S).group(1)))
    assert "error" not in facts, facts
    return facts


def test_nothing_is_fetched(report):
    page = to_html([report])
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    assert not re.search(r"<(?:link|img|script|iframe)[^>]*(?:src|href)=\"(?!data:)", page)
    assert page.count("</script>") == 2  # what is called '</script>' ends no script
    assert report._repr_html_().startswith("<iframe srcdoc=")


@needs_chromium
def test_the_graph_the_lists_and_their_reasons(report, tmp_path):
    facts = browse(to_html([report]), tmp_path, """
        for (const name of ["site", "conversion", "node", "edge", "c01b"]) facts[name] = all("#view ." + name).length;
        facts.buttons = all("#list button").length;
        facts.visible = all("#view .node").every(inView);
        facts.title = document.getElementById("title").textContent;
        facts.names = all("#view text").map(text => text.textContent);
        const site = all("#view .site")[0];
        facts.hit = site.contains(at(site)) || at(site) === site;
        at(site).dispatchEvent(new MouseEvent("click", {bubbles: true}));
        facts.clicked = details();
        facts.edges = all("#view .edge.chosen").length;
        press(all("#view .conversion")[0], "Enter");
        facts.pressed = details();
        facts.chosen = all("#view .node.chosen").length;
        all("#list button")[1].click();
        facts.listed = details();
        facts.focusable = all("#view [tabindex='0']").length;
        facts.unnamed = all("button, svg, [role=button]").filter(e => !e.getAttribute("aria-label") && !e.textContent.trim()).length;
        """)
    r = report.record
    roles = [node.role for node in r.drawing.nodes]
    assert (facts["site"], facts["conversion"], facts["node"]) == (roles.count(SITE), roles.count(CONVERSION), len(roles))
    assert facts["site"] == len(r.sites) and facts["conversion"] == len(r.conversions) > 0
    assert facts["edge"] == len(r.drawing.edges) and facts["visible"] and facts["hit"]
    assert facts["buttons"] == len(r.sites) + len(r.conversions) == facts["focusable"]
    assert facts["title"] == "layoutopt: 4 of 4 convolutions and poolings in c01b"
    assert "</script><b>images" in facts["names"]
    first = next(node.number for node in r.drawing.nodes if node.role == SITE)
    for word in (r.sites[first].sizes, r.sites[first].place, r.sites[first].op, "test_page.py:"):
        assert word in facts["clicked"]
    assert facts["edges"] > 0 and facts["chosen"] == 1 and facts["unnamed"] == 0
    assert "Conversion to " in facts["pressed"] and r.sites[1].sizes in facts["listed"]


@needs_chromium
@pytest.mark.parametrize("scheme, dark", [("0", True), ("1", False)])
def test_a_thousand_nodes_fit_zoom_and_move_light_and_dark(large, tmp_path, scheme, dark):
    facts = browse(to_html([large, large]), tmp_path, """
        const where = () => all("#view .site")[0].getBoundingClientRect();
        facts.nodes = all("#view .node").length;
        facts.visible = all("#view .node").every(inView);
        facts.far = all("#view.far").length;
        const before = where();
        press(document.getElementById("graph"), "ArrowRight");
        facts.moved = where().left - before.left;
        press(document.getElementById("graph"), "+");
        facts.grown = where().width / before.width;
        all("#list button")[0].click();
        facts.near = all("#view.far").length;
        facts.centred = inView(all("#view .node.chosen")[0]);
        press(document.getElementById("graph"), "0");
        facts.restored = Math.abs(where().width / before.width - 1) < 1e-6;
        facts.back = getComputedStyle(document.body).backgroundColor;
        facts.text = getComputedStyle(document.body).color;
        facts.choices = all("#function option").length;
        """, "--blink-settings=preferredColorScheme=" + scheme)
    assert facts["nodes"] == len(large.record.drawing.nodes) >= 1000
    assert facts["visible"] and facts["far"] == 1 and facts["near"] == 0 and facts["centred"] and facts["restored"]
    assert facts["moved"] == pytest.approx(-60, abs=1) and facts["grown"] == pytest.approx(1.25, abs=0.01)
    assert facts["choices"] == 2
    back, text = (sum(map(int, re.findall(r"\d+", facts[name])[:3])) for name in ("back", "text"))
    assert (back < text) == dark and abs(back - text) > 400


@needs_chromium
def test_a_function_without_facts_says_why(tmp_path):
    facts = browse(to_html([Report(None, "there is no C++ compiler")]), tmp_path, """
        facts.text = document.body.innerText;
        """)
    assert "nothing to report" in facts["text"] and "there is no C++ compiler" in facts["text"]


@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_no_two_nodes_are_drawn_on_each_other(rng, count):
    edges = sorted({(int(a), int(b)) for b in range(1, count) for a in rng.randint(0, b, 2)})
    places = positions(count, edges)
    assert len(places) == count
    rows = {}
    for x, y in places:
        rows.setdefault(y, []).append(x)
    for xs in rows.values():
        assert (np.diff(sorted(xs)) >= WIDTH - 1e-6).all()
    if count == 10:
        assert all(places[b][1] - places[a][1] >= HEIGHT for a, b in edges)


def test_a_chain_is_a_straight_line_and_a_long_one_is_cut_into_columns():
    assert len({x for x, _ in positions(5, [(i, i + 1) for i in range(4)])}) == 1
    places = np.array(positions(400, [(i, i + 1) for i in range(399)]))
    width, height = np.ptp(places, axis=0)
    assert 0.5 < width / height < 4
