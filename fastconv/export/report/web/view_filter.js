// One filter: everything that the file says of it.

import { filterHref, filterName, inEveryRun } from "./card.js";
import { arrays, index, plain } from "./data.js";
import { el } from "./dom.js";
import { hitPanels, hitsOf } from "./filter_hits.js";
import { heatMaps, kernel, nearest, spread } from "./filter_pictures.js";
import { classes, lacking, misfires, responses, statistics } from "./filter_tables.js";
import { href } from "./route.js";
import { sampleLookup } from "./samples.js";
import { about } from "./view_network.js";

export async function filterView({ parts, query }) {
  const [, name, which] = parts;
  const number_ = Number(query.run) || 0;
  const run = index.runs[number_] ?? index.runs[0];
  const layer = run.layers.find((found) => found.name === name);
  const filter = Number(which);
  if (!layer || !Number.isInteger(filter) || filter < 0 || filter >= layer.filters) {
    const wrong = layer ? `${name} has filters 0 to ${layer.filters - 1}.` : `There is no layer ${name}.`;
    return { title: "No such filter", nodes: [el("h1", {}, "No such filter"), el("p", { class: "missing" }, wrong)] };
  }
  const shared = inEveryRun(layer);
  const sides = shared.length > 1 ? index.runs.map((one, i) => [one, shared[i]]) : [[run, layer]];
  const bodies = await Promise.all(sides.map(([one, side]) => filterBody(one, side, filter, sides.length > 1)));
  return {
    title: filterName(layer, filter),
    previous: filter > 0 ? filterHref(layer, filter - 1, number_) : null,
    next: filter + 1 < layer.filters ? filterHref(layer, filter + 1, number_) : null,
    up: href(["filters"], { layer: name, run: number_ || "" }),
    nodes: [head(run, layer, filter, number_), sides.length > 1 ? el("div", { class: "sides" }, bodies) : bodies],
  };
}

function head(run, layer, filter, number_) {
  const step = (to, text, label) =>
    to >= 0 && to < layer.filters
      ? el("a", { class: "button", href: filterHref(layer, to, number_), "aria-label": label, title: label }, text)
      : el("span", { class: "button off", "aria-hidden": "true" }, text);
  return el(
    "header",
    { class: "page-head with-steps" },
    el(
      "div",
      {},
      el(
        "p",
        { class: "crumbs" },
        el("a", { href: href(["filters"], { layer: layer.name, run: number_ || "" }) }, layer.name),
        " /",
      ),
      el("h1", {}, `Filter ${filter}`),
      el("p", { class: "about" }, about(layer)),
    ),
    el("div", { class: "steps" }, step(filter - 1, "←", "previous filter"), step(filter + 1, "→", "next filter")),
  );
}

async function filterBody(run, layer, filter, named) {
  const [table, hits, weakest, lookup, wrong] = await Promise.all([
    arrays(layer.table),
    hitsOf(layer, filter),
    hitsOf(layer.weakest, filter),
    sampleLookup(run),
    run.misfires === null ? [] : plain(run.misfires),
  ]);
  const mistakes = wrong.filter((row) => run.layers[row.layer] === layer && row.filter === filter);
  const left = [...hitPanels(run, layer, filter, hits, weakest, lookup), layer.weights && kernel(layer, filter)];
  const right = [
    spread(layer, filter, table, [...hits, ...weakest]),
    layer.responses && responses(run, layer, filter),
    layer.classes && classes(run, layer, filter),
    mistakes.length > 0 && misfires(mistakes),
  ];
  const whole = [
    statistics(layer, filter, table),
    layer.maps && heatMaps(run, layer, filter, lookup),
    layer.nearest && nearest(run, layer, filter),
    lacking(run, layer),
  ];
  return el(
    "div",
    { class: "panels" },
    named && el("p", { class: "run-name" }, run.file),
    el("div", { class: "column" }, left.filter(Boolean)),
    el("div", { class: "column" }, right.filter(Boolean)),
    whole.filter(Boolean),
  );
}
