// A filter at a glance: its strongest patches, its weights, how its values are spread.

import { arrays, index } from "./data.js";
import { el, emptied, isDiscarded } from "./dom.js";
import { bars } from "./charts.js";
import { patchBlock, weightPicture } from "./draw.js";
import { href } from "./route.js";

/** The side of a block of patches, in CSS pixels: two of them beside each other on a phone. */
function blockWidth() {
  return innerWidth < 720 ? 132 : 168;
}

/** The least width of a card that shows so many runs. */
export function cardWidth(runs = 1) {
  return (blockWidth() + 8) * runs + 18;
}

const WEIGHTS = 40;

/** The address of a filter. */
export function filterHref(layer, filter, run = 0) {
  return href(["filter", layer.name, filter], run ? { run } : {});
}

/** What a filter is called. */
export function filterName(layer, filter) {
  return `${layer.name} / ${filter}`;
}

/** Cards that do not need the grid because they are few. */
export function cardList(cards) {
  return el("div", { class: "near", vars: { "--least": `${cardWidth()}px` } }, cards);
}

/** The layer in every run that is shown beside this one. */
export function inEveryRun(layer) {
  if (!index.comparison?.layers.includes(layer.name)) return [layer];
  return index.runs.map((run) => run.layers.find((found) => found.name === layer.name));
}

/** A link to a filter with its pictures, in several runs if given; `note` is a line below its name. */
export function filterCard(run, layer, filter, note = null, sides = [layer]) {
  return el(
    "a",
    { class: "card", href: filterHref(layer, filter, run) },
    el(
      "span",
      { class: "card-sides" },
      sides.map((side) => cardSide(side, filter)),
    ),
    el("span", { class: "card-name" }, filterName(layer, filter)),
    note && el("span", { class: "card-note" }, note),
  );
}

function cardSide(layer, filter) {
  const side = el("span", { class: "card-side" });
  const patches = el("span", { class: "card-patches" });
  const weights = el("span", { class: "card-weights" });
  const spark = el("span", { class: "card-spark" });
  side.append(patches, el("span", { class: "card-foot" }, layer.weights ? weights : null, spark));
  if (layer.patches) place(patches, patchBlock(layer, filter, blockWidth()));
  else if (layer.weights) place(patches, weightPicture(layer, filter, blockWidth()));
  if (layer.weights) place(weights, weightPicture(layer, filter, WEIGHTS));
  if (layer.histogram) place(spark, sparkline(layer, filter));
  return side;
}

/** The histogram of a filter, small. */
export async function sparkline(layer, filter, width = 118, height = 36) {
  const [{ height: heights }, table] = await Promise.all([arrays(layer.histogram), arrays(layer.table)]);
  const bins = heights.shape[1];
  return bars(
    heights.subarray(filter * bins, (filter + 1) * bins),
    table.min[filter],
    table.max[filter],
    width,
    height,
  );
}

/** Only the strongest patch, as a link. */
export function filterThumb(run, layer, filter, width = 44) {
  const link = el("a", {
    class: "thumb",
    href: filterHref(layer, filter, run),
    "aria-label": filterName(layer, filter),
    title: filterName(layer, filter),
  });
  if (layer.patches) place(link, patchBlock(layer, filter, width));
  else if (layer.weights) place(link, weightPicture(layer, filter, width));
  else link.append(String(filter));
  return link;
}

function place(parent, promise) {
  promise.then(
    (node) => {
      parent.replaceChildren(node);
      if (isDiscarded(parent)) emptied(parent); // out of sight before it was decoded
    },
    (error) => parent.replaceChildren(el("span", { class: "missing" }, error.message)),
  );
}
