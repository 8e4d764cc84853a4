// The hits of a filter: what excites it most, or least, and where in the whole picture it is.

import { arrays } from "./data.js";
import { el, later } from "./dom.js";
import { boxedPicture, patchPicture } from "./draw.js";
import { count, number, percent } from "./format.js";
import { missing, panel } from "./panel.js";
import { className } from "./samples.js";

const STATUS = ["exact", "bound", "global"];

/** The hits of a filter; `side` is its layer, or what its layer says of the weakest hits. */
export async function hitsOf(side, filter) {
  if (!side?.hits) return [];
  const found = await arrays(side.hits);
  const [, k] = found.values.shape;
  const [, , dimensions, sides] = found.box.shape;
  const rank = found.position.shape[2];
  return Array.from({ length: k }, (_, r) => {
    const at = filter * k + r;
    const edge = (d, s) => found.box[(at * dimensions + d) * sides + s];
    return {
      rank: r,
      value: found.values[at],
      sample: found.sample[at],
      position: Array.from(found.position.subarray(at * rank, (at + 1) * rank)),
      box: Array.from({ length: dimensions }, (_, d) => [edge(d, 0), edge(d, 1)]),
      status: STATUS[found.status[at]],
    };
  }).filter((hit) => hit.sample >= 0);
}

const MOST = "What excites it most";
const LEAST = "What it answers least";

/** The panels of the hits that were kept, and a line for those of the order that was not. */
export function hitPanels(run, layer, filter, hits, weakest, lookup) {
  if (!layer.hits) return [panel(MOST, "hits", missing("hits", "topk=9"))];
  const titles = run.order === "smallest" ? [LEAST, MOST] : [MOST, LEAST];
  const first = hitPanel(titles[0], run, layer, filter, hits, lookup);
  if (layer.weakest) return [first, hitPanel(titles[1], run, layer.weakest, filter, weakest, lookup)];
  const what = titles[1] === LEAST ? "weakest hits" : "strongest hits";
  return [first, panel(titles[1], "hits", missing(what, 'order="both"'))];
}

function hitPanel(title, run, layer, filter, hits, lookup) {
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
          `The file has ${layer.kept_ranks} of these patches of each filter; the first ${layer.patches.ranks} are in this page.`,
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
    el("span", { class: "hit-text" }, el("b", {}, number(hit.value)), " ", el("span", {}, label ?? `#${hit.sample}`)),
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
          el("figcaption", {}, "Boxed: what the filter sees."),
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
