// What is known of a filter in numbers.

import { filterHref } from "./card.js";
import { intervals, meter } from "./charts.js";
import { arrays, column, index } from "./data.js";
import { el, later } from "./dom.js";
import { chance, formatted, number, percent } from "./format.js";
import { missing, panel, scrolling } from "./panel.js";
import { href } from "./route.js";
import { className, classTitle } from "./samples.js";

export function responses(run, layer, filter) {
  const drawn = arrays(layer.responses).then((found) => {
    const cell = (name, c) => (found[name] ? found[name][filter * run.conditions.length + c] : NaN);
    const rows = run.conditions.map((name, c) => ({
      name,
      value: cell("mean_change", c),
      low: cell("low", c),
      high: cell("high", c),
    }));
    const columns = [
      ["mean_change", "change of mean"],
      ["max_change", "change of maximum"],
      ["rank_correlation", "rank correlation"],
      ["invariance", "invariance"],
      ["topk_overlap", "same hits"],
    ].filter(([name]) => found[name]);
    return [
      intervals(rows, `Change of the mean response under ${run.conditions.join(", ")}`),
      scrolling(
        ["condition", ...columns.map(([, label]) => label)],
        run.conditions.map((name, c) => [name, ...columns.map(([key]) => number(cell(key, c)))]),
      ),
    ];
  });
  return panel("Under other conditions", "responses", later(drawn));
}

export function classes(run, layer, filter) {
  const drawn = arrays(layer.classes).then((found) => {
    const [, shown] = found.class.shape;
    const rows = Array.from({ length: shown }, (_, i) => {
      const at = filter * shown + i;
      const name = className(run, found.class[at]);
      return [
        el("a", { href: href(["class", found.class[at]]) }, name),
        meter(2 * found.auroc[at] - 1, number(found.auroc[at])),
        number(found.mean?.[at]),
        number(found.effect?.[at]),
        chance(found.q?.[at]),
      ];
    });
    return scrolling(["class", "AUROC", "mean", "effect", "q"], rows);
  });
  return panel(
    "By class",
    "classes",
    later(drawn),
    el(
      "p",
      { class: "note" },
      "The classes it tells best from the others. q: share of false discoveries expected at this level.",
    ),
  );
}

export function misfires(rows) {
  const cells = rows.map((row) => [
    classTitle(row.class),
    percent(row.rate),
    number(row.lift ?? Infinity),
    chance(row.q),
  ]);
  const note =
    "It fires on samples that are mistaken for this class. Rate: on so many of these; lift: so much more often than on samples that are told right.";
  return panel(
    "Misfires",
    "misfires",
    scrolling(["mistaken for", "rate", "lift", "q"], cells),
    el("p", { class: "note" }, note),
  );
}

export function statistics(layer, filter, table) {
  const items = Object.keys(index.columns)
    .filter((name) => table[name])
    .map((name) => {
      const { values, texts, format, label, help } = column(layer, table, name);
      const link = el("a", { href: href(["filters"], { layer: layer.name, sort: name }), title: help }, label);
      const value = values[filter];
      const words =
        format === "filter" && value >= 0
          ? el("a", { href: filterHref(layer, value) }, String(value))
          : formatted(value, format, texts);
      const ranked = !texts && ["number", "percent", "integer"].includes(format);
      const rank = ranked && el("dd", { class: "rank" }, `${rankOf(values, filter)} of ${layer.filters}`);
      return el("div", {}, el("dt", {}, link), el("dd", {}, words), rank);
    });
  if (!items.length) return panel("In numbers", "numbers", missing("statistics", "stats=True"));
  const note = "At the right the rank in the layer, the greatest first; a name sorts the layer by it.";
  return panel("In numbers", "numbers", el("dl", { class: "figures" }, items), el("p", { class: "note" }, note));
}

/** The rank of a value among those of its layer, the greatest first. */
function rankOf(values, filter) {
  const mine = values[filter];
  if (Number.isNaN(mine)) return "–";
  let above = 0;
  for (const value of values) if (value > mine) above++;
  return above + 1;
}

/** What could stand here and does not, with the call that would keep it. */
export function lacking(run, layer) {
  const rows = run.lacks.map(([what, call]) => [what, call]);
  const tables = { responses: layer.responses, classes: layer.classes, misfires: run.misfires !== null };
  for (const [name, there] of Object.entries(tables)) {
    if (!there && run.missing[name]) rows.push([name, run.missing[name]]);
  }
  if (!rows.length) return null;
  return el(
    "details",
    { class: "panel quiet lacking" },
    el("summary", {}, `Not in this page: ${rows.map(([what]) => what).join(", ")}`),
    el(
      "dl",
      { class: "pairs" },
      rows.map(([what, call]) => [el("dt", {}, what), el("dd", {}, el("code", {}, call))]),
    ),
  );
}
