// The network at a glance: a strip for every layer.

import { index } from "./data.js";
import { el } from "./dom.js";
import { ribbon } from "./charts.js";
import { filterThumb } from "./card.js";
import { count, number, plural, times } from "./format.js";
import { href } from "./route.js";

const KINDS = [
  ["dead", "never above 0"],
  ["sparse", "above 0 at fewer than 5 % of the positions"],
  ["selective", "maximum at least 8 standard deviations above the mean"],
];

const ROOMY = 8; // so many strips have room for larger pictures

export function networkView() {
  const [first] = index.runs;
  const heading = index.runs.map((run) => run.file).join(" beside ");
  const strips = index.runs.flatMap((run, number_) => run.layers.map((layer) => [number_, run, layer]));
  const order = new Map(first.layers.map((layer, i) => [layer.name, i]));
  strips.sort((a, b) => (order.get(a[2].name) ?? 1e9) - (order.get(b[2].name) ?? 1e9) || a[0] - b[0]);
  return {
    title: "Network",
    nodes: [
      el(
        "header",
        { class: "page-head" },
        el("h1", {}, heading),
        index.runs.map((run) => facts(run)),
      ),
      comparisonNote(),
      legend(),
      el(
        "ol",
        { class: strips.length > ROOMY ? "strips" : "strips roomy" },
        strips.map(([at, run, layer]) => strip(at, run, layer, strips.length <= ROOMY && innerWidth > 720)),
      ),
    ],
  };
}

function facts(run) {
  const shown = ["model", "samples", "layers", "filters", "stage", "accuracy"];
  return el(
    "dl",
    { class: "facts", "aria-label": run.file },
    index.runs.length > 1 && el("div", {}, el("dt", {}, "file"), el("dd", {}, run.file)),
    run.facts
      .filter(([key]) => shown.includes(key))
      .map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))),
  );
}

function comparisonNote() {
  if (!index.comparison) return null;
  const { differences, layers } = index.comparison;
  return el(
    "details",
    { class: "panel quiet", open: differences.length < 4 },
    el("summary", {}, `${plural(layers.length, "layer")} side by side; ${plural(differences.length, "difference")}`),
    el(
      "ul",
      {},
      differences.map((line) => el("li", {}, line)),
    ),
  );
}

function legend() {
  return el(
    "p",
    { class: "legend" },
    "Each strip is a layer, in forward order. The ribbon: what its filters answer, sorted by their median (line); dark 25–75 %, light 1–99 % of the values. At its right: the filters that stand out most.",
  );
}

function strip(number_, run, layer, roomy) {
  const address = href(["filters"], { layer: layer.name, ...(number_ ? { run: number_ } : {}) });
  return el(
    "li",
    { class: `strip ${index.runs.length > 1 ? `run-${number_}` : ""}` },
    el(
      "div",
      { class: "strip-name" },
      el("h2", {}, el("a", { href: address }, layer.name)),
      el("p", { class: "about" }, about(layer)),
      index.runs.length > 1 && el("p", { class: "run-name" }, run.file),
    ),
    counts(layer, address),
    ribbonFigure(layer, roomy ? 84 : 56),
    el(
      "div",
      { class: "strip-thumbs" },
      layer.exemplars.slice(0, roomy ? 6 : 8).map((filter) => filterThumb(number_, layer, filter, roomy ? 92 : 64)),
    ),
  );
}

export function about(layer) {
  const kernel = layer.kernel ? `${times(layer.kernel)} ` : "";
  const unit = layer.field.length === 2 ? " px" : "";
  const field = layer.field.length ? `, each sees ${times(layer.field)}${unit}` : "";
  return `${kernel}${layer.kind} · ${plural(layer.filters, "filter")}${field}`;
}

function counts(layer, address) {
  if (!layer.counts) return el("p", { class: "missing strip-counts" }, "no statistics kept: stats=True");
  return el(
    "ul",
    { class: "strip-counts", "aria-label": "filters" },
    KINDS.map(([kind, meaning]) =>
      el(
        "li",
        { class: layer.counts[kind] ? kind : `${kind} none` },
        el(
          "a",
          { href: `${address}&show=${kind}`, title: `${kind}: ${meaning}` },
          el("span", { class: "count" }, count(layer.counts[kind])),
          ` ${kind}`,
        ),
      ),
    ),
  );
}

function ribbonFigure(layer, height) {
  if (!layer.ribbon) return el("p", { class: "missing strip-ribbon" }, "no quantiles kept: quantiles=True");
  const { chart, low, high } = ribbon(layer.ribbon, 300, height, `quantiles of the filters of ${layer.name}`);
  return el(
    "div",
    { class: "strip-ribbon" },
    chart,
    el("div", { class: "range", "aria-hidden": "true" }, el("span", {}, number(high)), el("span", {}, number(low))),
  );
}
