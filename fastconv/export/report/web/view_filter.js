// One filter: everything that the file says of it.

import { arrays, column, index, plain } from "./data.js";
import { el, later } from "./dom.js";
import { cardList, filterCard, filterHref, filterName } from "./card.js";
import { distribution, intervals, meter } from "./charts.js";
import { boxedPicture, isColour, kernelPicture, mapPicture, patchPicture, weightPicture, weightsOf } from "./draw.js";
import { chance, count, formatted, number, percent, plural, times } from "./format.js";
import { href } from "./route.js";
import { classTitle, className, sampleLookup } from "./samples.js";
import { about } from "./view_network.js";

const STATUS = ["exact", "bound", "global"];

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
  const paired = index.comparison && index.comparison.layers.includes(name);
  const sides = paired
    ? index.runs.map((one) => [one, one.layers.find((found) => found.name === name)])
    : [[run, layer]];
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
  const [table, hits, lookup, wrong] = await Promise.all([
    arrays(layer.table),
    layer.hits ? hitsOf(layer, filter) : [],
    sampleLookup(run),
    run.misfires === null ? [] : plain(run.misfires),
  ]);
  const mistakes = wrong.filter((row) => run.layers[row.layer] === layer && row.filter === filter);
  const left = [strongest(run, layer, filter, hits, lookup), layer.weights && kernel(layer, filter)];
  const right = [
    spread(layer, filter, table, hits),
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

function panel(title, className_, ...content) {
  return el("section", { class: `panel ${className_}` }, el("h2", {}, title), content);
}

async function hitsOf(layer, filter) {
  const found = await arrays(layer.hits);
  const [, k] = found.value.shape;
  const [, , dimensions, sides] = found.box.shape;
  const rank = found.position.shape[2];
  return Array.from({ length: k }, (_, r) => {
    const at = filter * k + r;
    const edge = (d, s) => found.box[(at * dimensions + d) * sides + s];
    return {
      rank: r,
      value: found.value[at],
      sample: found.sample[at],
      position: Array.from(found.position.subarray(at * rank, (at + 1) * rank)),
      box: Array.from({ length: dimensions }, (_, d) => [edge(d, 0), edge(d, 1)]),
      status: STATUS[found.status[at]],
    };
  }).filter((hit) => hit.sample >= 0);
}

function strongest(run, layer, filter, hits, lookup) {
  const title = run.order === "smallest" ? "What it answers least" : "What excites it most";
  if (!layer.hits) return panel(title, "hits", missing("hits", "topk=9"));
  if (!hits.length) return panel(title, "hits", el("p", { class: "empty" }, "No hit: none of its values is finite."));
  const detail = el("div", { class: "hit-detail", "aria-live": "polite" });
  const buttons = hits.map((hit) => hitButton(run, layer, filter, hit, lookup, choose));
  function choose(hit) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", hits[i] === hit));
    detail.replaceChildren(...hitDetail(run, layer, filter, hit, lookup));
  }
  choose(hits[0]);
  const more =
    layer.patches && layer.kept_ranks > layer.patches.ranks
      ? el(
          "p",
          { class: "note" },
          `The file has ${layer.kept_ranks} patches of each filter; the strongest ${layer.patches.ranks} are in this page.`,
        )
      : null;
  return panel(
    title,
    "hits",
    el(
      "div",
      { class: "hits-body" },
      el("div", { class: wide(layer) && layer.patches.kind === "picture" ? "hit-list wide" : "hit-list" }, buttons),
      detail,
    ),
    more,
  );
}

function wide(layer) {
  return layer.patches && (layer.patches.kind === "wave" || layer.patches.width > 1.8 * layer.patches.height);
}

function hitButton(run, layer, filter, hit, lookup, choose) {
  const known = lookup(hit.sample);
  const label = className(run, known.label);
  const size = layer.patches?.kind === "wave" ? 112 : wide(layer) ? 168 : 90;
  return el(
    "button",
    { type: "button", class: "hit", "aria-pressed": "false", title: known.name, on: { click: () => choose(hit) } },
    layer.patches && hit.rank < layer.patches.ranks ? later(patchPicture(layer, filter, hit.rank, size)) : null,
    el(
      "span",
      { class: "hit-text" },
      el("b", {}, number(hit.value)),
      label !== null ? ` · ${label}` : ` · #${hit.sample}`,
    ),
    el("span", { class: "hidden" }, `, patch ${hit.rank + 1}, sample ${hit.sample}`),
  );
}

function hitDetail(run, layer, filter, hit, lookup) {
  const known = lookup(hit.sample);
  const label = className(run, known.label);
  const prediction = className(run, known.prediction);
  const inside = hit.box
    .map(([from, to]) => `${from}:${to}`)
    .join(", ")
    .replaceAll("-", "−");
  const rows = [
    ["sample", `${count(hit.sample)}${known.name ? ` · ${known.name}` : ""}`],
    label !== null && ["class", label],
    prediction !== null && [
      "predicted",
      `${prediction}${known.correct === 0 ? " (wrong)" : ""}${known.confidence !== undefined ? `, ${percent(known.confidence)}` : ""}`,
    ],
    hit.position.length && ["position", hit.position.join(", ")],
    hit.box.length && ["box", `${inside}${hit.status === "exact" ? "" : ` (${hit.status})`}`],
  ].filter(Boolean);
  const words = `Sample ${hit.sample} with the box of the hit`;
  return [
    known.hasPicture
      ? el(
          "figure",
          {},
          later(boxedPicture(known.picture, hit.box, run.input_size, 260, words)),
          el("figcaption", {}, "The whole picture, with what the filter sees of it."),
        )
      : layer.patches && hit.rank < layer.patches.ranks
        ? el("figure", {}, later(patchPicture(layer, filter, hit.rank, 260, `patch ${hit.rank + 1}`)))
        : null,
    el(
      "dl",
      { class: "pairs" },
      rows.map(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]),
    ),
  ].filter(Boolean);
}

function spread(layer, filter, table, hits) {
  if (!layer.histogram) return panel("How its values are spread", "spread", missing("histogram", "quantiles=True"));
  const drawn = arrays(layer.histogram).then(({ height, tallest }) => {
    const bins = height.shape[1];
    const [low, high] = [table.min[filter], table.max[filter]];
    if (Number.isNaN(low)) return el("p", { class: "empty" }, "None of its values is finite.");
    const words = `Histogram from ${number(low)} to ${number(high)}; ${percent(table.positive[filter])} of the values are above 0`;
    const chart = distribution(
      height.subarray(filter * bins, (filter + 1) * bins),
      low,
      high,
      hits.map((hit) => hit.value),
      words,
    );
    const note = `Over all positions of all samples, on a square-root scale: the tallest bar holds ${percent(tallest[filter])} of the values; blue above 0. Ticks: its hits.`;
    return [chart, el("p", { class: "note" }, note)];
  });
  return panel("How its values are spread", "spread", later(drawn));
}

function kernel(layer, filter) {
  const { shape, of, over_channels } = layer.weights;
  const drawn = weightsOf(layer, filter).then(async (found) => {
    if (over_channels)
      return el(
        "figure",
        {},
        kernelPicture(found.level[0], shape, 420, `weights over ${of} input channels`),
        el("figcaption", {}, `over ${plural(of, "input channel")}`),
      );
    const size = shape.length === 3 ? 220 : shape.length === 1 ? 150 : 92;
    const colour = isColour(layer)
      ? [
          el(
            "figure",
            {},
            await weightPicture(layer, filter, size, "weights in colour"),
            el("figcaption", {}, "in colour"),
          ),
        ]
      : [];
    const each = found.level.map((level, i) =>
      el(
        "figure",
        {},
        kernelPicture(level, shape, size, `weights of input channel ${found.channel[i]}`),
        el("figcaption", {}, of === 1 ? `${times(shape)}` : `channel ${found.channel[i]}`),
      ),
    );
    const scale = el(
      "p",
      { class: "note scale" },
      el("span", {}, number(-found.peak)),
      el("span", { class: "ramp diverging", "aria-hidden": "true" }),
      el("span", {}, number(found.peak)),
    );
    return el("div", {}, el("div", { class: "tiles" }, colour, each), shape.length > 1 && scale);
  });
  const note =
    layer.weights.shown < of && !over_channels
      ? el("p", { class: "note" }, `The ${layer.weights.shown} input channels it weighs most, of ${of}.`)
      : null;
  return panel("Its weights", "kernel", later(drawn), note);
}

function heatMaps(run, layer, filter, lookup) {
  const { samples, shape } = layer.maps;
  const width = shape.length === 3 ? 240 : shape.length === 1 ? 200 : 104;
  const figures = samples.map((sample, i) => {
    const known = lookup(sample);
    const label = className(run, known.label);
    const behind = known.hasPicture && shape.length === 2 ? known.picture : null;
    return el(
      "figure",
      {},
      later(mapPicture(layer, filter, i, width, `activation of sample ${sample}`, behind)),
      el("figcaption", { title: known.name }, `#${sample}${label === null ? "" : ` · ${label}`}`),
    );
  });
  const scale = arrays(layer.maps.packs[Math.floor(filter / 64)]).then(({ low, high }) =>
    el(
      "p",
      { class: "note scale" },
      el("span", {}, number(low[filter % 64])),
      el("span", { class: "ramp viridis", "aria-hidden": "true" }),
      el("span", {}, number(high[filter % 64])),
    ),
  );
  return panel("Where it answers", "maps", el("div", { class: "tiles" }, figures), shape.length > 1 && later(scale));
}

function responses(run, layer, filter) {
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

function classes(run, layer, filter) {
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

function misfires(rows) {
  const cells = rows.map((row) => [classTitle(row.class), percent(row.rate), number(row.lift), chance(row.q)]);
  const note =
    "It fires on samples that are mistaken for this class. Rate: on so many of these; lift: so much more often than on samples that are told right.";
  return panel(
    "Misfires",
    "misfires",
    scrolling(["mistaken for", "rate", "lift", "q"], cells),
    el("p", { class: "note" }, note),
  );
}

function nearest(run, layer, filter) {
  const drawn = arrays(layer.nearest).then((found) => {
    const [, shown] = found.filter.shape;
    const cards = Array.from({ length: shown }, (_, i) => {
      const at = filter * shown + i;
      return filterCard(index.runs.indexOf(run), layer, found.filter[at], `${number(found.similarity[at])} alike`);
    });
    return cardList(cards);
  });
  const by = layer.nearest.by === "responses" ? "correlation of the samples' maxima" : "cosine of the weights";
  return panel("Filters most like it", "nearest", later(drawn), el("p", { class: "note" }, `By the ${by}.`));
}

function statistics(layer, filter, table) {
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

function scrolling(heads, rows) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": heads.filter(Boolean).join(", ") },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((text) => (text ? el("th", { scope: "col" }, text) : el("td", {}))),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((cell, i) => (i ? el("td", {}, cell) : el("th", { scope: "row" }, cell))),
          ),
        ),
      ),
    ),
  );
}

function missing(what, call) {
  return el(
    "p",
    { class: "missing" },
    `The run kept no ${what}. `,
    el("code", {}, `fastconv.extract(..., ${call})`),
    " keeps it.",
  );
}

/** What could stand here and does not, with the call that would keep it. */
function lacking(run, layer) {
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
