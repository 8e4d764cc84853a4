// What of a filter can be drawn: its values, its weights, its activation maps, its likes.

import { cardList, filterCard } from "./card.js";
import { distribution } from "./charts.js";
import { arrays, index, PER_CHUNK } from "./data.js";
import { el, later } from "./dom.js";
import { isColour, kernelPicture, mapPicture, weightPicture, weightsOf } from "./draw.js";
import { number, percent, plural, times } from "./format.js";
import { missing, panel } from "./panel.js";
import { className } from "./samples.js";

export function spread(layer, filter, table, hits) {
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

export function kernel(layer, filter) {
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

export function heatMaps(run, layer, filter, lookup) {
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
  const scale = arrays(layer.maps.packs[Math.floor(filter / PER_CHUNK)]).then(({ low, high }) =>
    el(
      "p",
      { class: "note scale" },
      el("span", {}, number(low[filter % PER_CHUNK])),
      el("span", { class: "ramp viridis", "aria-hidden": "true" }),
      el("span", {}, number(high[filter % PER_CHUNK])),
    ),
  );
  return panel("Where it answers", "maps", el("div", { class: "tiles" }, figures), shape.length > 1 && later(scale));
}

export function nearest(run, layer, filter) {
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
