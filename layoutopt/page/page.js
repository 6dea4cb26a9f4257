"use strict";
// Draws the functions in #data: their graphs, whose places were computed when the page was written, and the lists beside them.

const SVG = "http://www.w3.org/2000/svg";
const BOX = {width: 168, height: 34};
const LONG = 5;          // layers or boxes; longer edges are faint until an end of theirs is chosen
const LAYER = 74;        // height of a layer, as in layering.py
const READABLE = 0.45;   // scale from which labels are drawn
const LARGEST = 3;

const byId = id => document.getElementById(id);
const svg = byId("graph"), view = byId("view");
const functions = JSON.parse(byId("data").textContent).functions;
let shown, scale, x0, y0;   // the function that is shown; what of its graph is in view

function element(tag, attributes = {}, text = "", namespace = null) {
  const made = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// ---- words

const milliseconds = seconds => Number((1e3 * seconds).toPrecision(3)) + " ms";

function bytes(count) {
  for (const unit of ["bytes", "kB", "MB"]) {
    if (count < 1000) return Number(count.toPrecision(3)) + " " + unit;
    count /= 1000;
  }
  return Number(count.toPrecision(3)) + " GB";
}

function seconds(site) {
  const chosen = site.layout === "c01b" ? site.c01b_seconds : site.bc01_seconds;
  return chosen === null ? site.bc01_seconds : chosen;
}

const siteFacts = site => ({
  "Place": site.place,
  "Sizes": site.sizes,
  "Layout": site.layout,
  "Kernel": site.op,
  "Verdict": site.reason,
  [site.timed ? "Measured" : "Predicted"]: milliseconds(site.bc01_seconds) + " in bc01" +
    (site.c01b_seconds === null ? "" : ", " + milliseconds(site.c01b_seconds) + " in c01b"),
  "Profiled": site.profiled_seconds === null ? "" : milliseconds(site.profiled_seconds) + " a call",
  "Took in": site.note,
  "Would change it": site.hints.join("; "),
});

const conversionFacts = conversion => ({
  "Value": conversion.value,
  "Size": bytes(conversion.bytes),
  "Predicted": milliseconds(conversion.seconds),
  "Profiled": conversion.profiled_seconds === null ? "" : milliseconds(conversion.profiled_seconds) + " a call",
  "Produced by": conversion.produced_by,
  "Needed by": conversion.needed_by,
  "Layout ends at": conversion.ends.join("; "),
});

function titleAndFacts(node) {
  if (node.role === "site") {
    const site = shown.sites[node.number];
    return [site.kind, siteFacts(site)];
  }
  if (node.role === "conversion") {
    const conversion = shown.conversions[node.number];
    return ["Conversion to " + conversion.to, conversionFacts(conversion)];
  }
  return [node.label, {"Role": node.role, "Layout": node.layout, "Place": node.place}];
}

// ---- the graph

function activate(target, act) {
  target.addEventListener("click", act);
  target.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); }
  });
}

function drawNode(node, number) {
  const [x, y] = node.at, [title] = titleAndFacts(node);
  const group = element("g", {class: ["node", node.role, node.layout].join(" "), transform: `translate(${x} ${y})`,
                              tabindex: node.role === "site" || node.role === "conversion" ? 0 : -1, role: "button",
                              "aria-label": `${title}, ${node.layout}`, "data-node": number}, "", SVG);
  const round = node.role === "conversion" ? BOX.height / 2 : 6;
  group.append(element("title", {}, node.label + (node.place ? ", " + node.place : ""), SVG),
               element("rect", {x: -BOX.width / 2, y: -BOX.height / 2, width: BOX.width, height: BOX.height, rx: round}, "", SVG),
               element("text", {}, node.label.length > 22 ? node.label.slice(0, 21) + "…" : node.label, SVG));
  activate(group, () => choose(number));
  return group;
}

function isLong(x1, y1, x2, y2) {
  return y2 <= y1 || y2 - y1 > LONG * LAYER || Math.abs(x2 - x1) > LONG * BOX.width;
}

function drawEdge([from, to]) {
  const [x1, y1] = shown.graph.nodes[from].at, [x2, y2] = shown.graph.nodes[to].at;
  const start = y1 + BOX.height / 2, end = y2 - BOX.height / 2, bend = Math.min(LAYER, Math.max(20, Math.abs(end - start) / 2));
  const names = ["edge", shown.graph.nodes[from].layout, isLong(x1, y1, x2, y2) ? "long" : ""].join(" ").trim();
  return element("path", {class: names, "data-from": from, "data-to": to,
                          d: `M${x1} ${start} C${x1} ${start + bend} ${x2} ${end - bend} ${x2} ${end}`}, "", SVG);
}

function place() {
  view.setAttribute("transform", `translate(${x0} ${y0}) scale(${scale})`);
  view.classList.toggle("far", scale < READABLE);
}

function showAll() {
  const ats = shown.graph.nodes.map(node => node.at);
  if (!ats.length) return;
  const left = Math.min(...ats.map(at => at[0])) - BOX.width, right = Math.max(...ats.map(at => at[0])) + BOX.width;
  const top = Math.min(...ats.map(at => at[1])) - BOX.height, bottom = Math.max(...ats.map(at => at[1])) + BOX.height;
  const {width, height} = svg.getBoundingClientRect();
  scale = Math.min(1.2, width / (right - left), height / (bottom - top));
  x0 = (width - scale * (left + right)) / 2;
  y0 = (height - scale * (top + bottom)) / 2;
  place();
}

function zoom(factor, x, y) {
  const {width, height} = svg.getBoundingClientRect();
  x = x === undefined ? width / 2 : x;
  y = y === undefined ? height / 2 : y;
  const next = Math.min(LARGEST, Math.max(0.005, scale * factor));
  x0 = x - (x - x0) * next / scale;
  y0 = y - (y - y0) * next / scale;
  scale = next;
  place();
}

function pan(dx, dy) {
  x0 += dx;
  y0 += dy;
  place();
}

function centre(number) {
  const {width, height} = svg.getBoundingClientRect(), [x, y] = shown.graph.nodes[number].at;
  scale = Math.max(scale, 0.8);
  x0 = width / 2 - scale * x;
  y0 = height / 3 - scale * y;
  place();
}

// ---- choosing

function choose(number) {
  const node = shown.graph.nodes[number], [title, facts] = titleAndFacts(node);
  for (const old of document.querySelectorAll(".chosen")) old.classList.remove("chosen");
  view.querySelector(`[data-node="${number}"]`).classList.add("chosen");
  for (const edge of view.querySelectorAll(`[data-from="${number}"], [data-to="${number}"]`)) edge.classList.add("chosen");
  for (const button of byId("list").querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.of === String(number));
  describe(title, facts);
}

function describe(title, facts) {
  const list = element("dl");
  for (const [name, value] of Object.entries(facts))
    if (value) list.append(element("dt", {}, name), element("dd", {}, value));
  byId("details").replaceChildren(element("h2", {}, title[0].toUpperCase() + title.slice(1)), list);
}

function entry(kind, number, title, line) {
  const node = shown.graph.nodes.findIndex(other => other.role === kind && other.number === number);
  const layout = kind === "site" ? shown.sites[number].layout : "conversion";
  const button = element("button", {class: layout, "aria-pressed": false, "data-of": node}, title);
  button.append(element("small", {}, line));
  button.addEventListener("click", () => {
    if (node >= 0) { centre(node); choose(node); }
    else describe(title, kind === "site" ? siteFacts(shown.sites[number]) : conversionFacts(shown.conversions[number]));
  });
  return button;
}

function fillList() {
  const list = byId("list");
  list.replaceChildren();
  if (!shown.decided) return;
  list.append(element("h2", {}, "Convolutions and poolings"));
  shown.sites.forEach((site, i) => list.append(
    entry("site", i, `${site.kind}, ${milliseconds(seconds(site))}`, [site.place, site.sizes].filter(Boolean).join(": "))));
  list.append(element("h2", {}, "Conversions left"));
  if (!shown.conversions.length) list.append(element("p", {}, "none"));
  shown.conversions.forEach((conversion, i) => list.append(
    entry("conversion", i, `to ${conversion.to}, ${milliseconds(conversion.seconds)}`, `${conversion.value}, ${bytes(conversion.bytes)}`)));
  if (shown.ends.length) list.append(element("h2", {}, "What the layout ends at, and its price"));
  for (const end of shown.ends) list.append(element("p", {}, `${milliseconds(end.seconds)}: ${end.op}`));
}

function summary() {
  if (!shown.decided) return shown.reason;
  const plan = shown.applied ? `Planned: ${milliseconds(shown.unchanged_seconds)} before, ${milliseconds(shown.planned_seconds)} after. ` +
    `The proven lower bound is ${milliseconds(shown.bound_seconds)}` +
    (shown.planned_seconds === shown.bound_seconds ? ": no assignment of layouts is cheaper." : ".") :
    `Left alone: no plan is cheaper than ${milliseconds(shown.unchanged_seconds)}.`;
  return [shown.reason, plan, shown.hint].filter(Boolean).join(" ");
}

function show(number) {
  shown = functions[number];
  shown.graph = shown.graph || {nodes: [], edges: []};
  const inC01b = (shown.sites || []).filter(site => site.layout === "c01b").length;
  byId("title").textContent = shown.decided ?
    `layoutopt: ${inC01b} of ${shown.sites.length} convolutions and poolings in c01b` : "layoutopt: nothing to report";
  byId("summary").textContent = summary();
  byId("details").replaceChildren();
  view.replaceChildren(...shown.graph.edges.map(drawEdge), ...shown.graph.nodes.map(drawNode));
  fillList();
  showAll();
}

// ---- keys and pointer

const KEYS = {
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": showAll,
  ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
};
svg.addEventListener("keydown", event => {
  const act = KEYS[event.key];
  if (act && !event.ctrlKey && !event.metaKey) { event.preventDefault(); act(); }
});
svg.addEventListener("focusin", event => {
  const group = event.target.closest("[data-node]");
  if (group && event.target.matches(":focus-visible")) centre(Number(group.dataset.node));
});
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const box = svg.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, {passive: false});
svg.addEventListener("pointermove", event => {
  svg.classList.toggle("dragged", event.buttons === 1);
  if (event.buttons === 1) pan(event.movementX, event.movementY);
});
byId("in").addEventListener("click", () => zoom(1.25));
byId("out").addEventListener("click", () => zoom(0.8));
byId("all").addEventListener("click", showAll);

functions.forEach((one, i) => byId("function").append(element("option", {value: i}, `${i + 1}: ${one.name}`)));
byId("choice").hidden = functions.length < 2;
byId("function").addEventListener("change", event => show(Number(event.target.value)));
show(0);
