// The samples in the plane; a brush asks what a part of them has in common.

import { arrays, index } from "./data.js";
import { el } from "./dom.js";
import { cardList, filterCard } from "./card.js";
import { classColour } from "./colours.js";
import { number, percent, plural } from "./format.js";
import { className, sampleLookup } from "./samples.js";
import { sampleList } from "./view_classes.js";

const MARGIN = 18;
const METHODS = { pca: "first two principal axes", tsne: "t-SNE", umap: "UMAP" };

export async function embeddingView({ query }) {
  const run = index.runs[Number(query.run) || 0] ?? index.runs[0];
  const head = (...more) => el("header", { class: "page-head" }, el("h1", {}, "Embedding"), more);
  if (!run.embedding)
    return {
      title: "Embedding",
      nodes: [head(), el("p", { class: "missing" }, `No embedding: ${run.missing.embedding}`)],
    };
  const [found, lookup] = await Promise.all([arrays(run.embedding.points), sampleLookup(run)]);
  const layer = run.layers.find((one) => one.name === run.embedding.layer);
  const known = Array.from(found.sample, lookup);
  const trust = run.embedding.trustworthiness;
  const detail = el(
    "div",
    { class: "brushed", "aria-live": "polite" },
    el(
      "p",
      { class: "empty" },
      "Draw a box in the plane, or choose a class, to see what these samples have in common.",
    ),
  );
  const show = (chosen) => detail.replaceChildren(...brushed(run, layer, found, known, chosen, lookup));
  const scatter = scatterPlot(found.point, known, show);
  return {
    title: "Embedding",
    leave: scatter.leave,
    nodes: [
      head(
        el(
          "p",
          { class: "about" },
          `${plural(known.length, "sample")} by how the ${plural(layer.filters, "filter")} of ${layer.name} answer to them; ${METHODS[run.embedding.method] ?? run.embedding.method}; trustworthiness ${number(trust)}`,
        ),
        run.embedding.warning && el("p", { class: "missing" }, run.embedding.warning),
      ),
      el(
        "div",
        { class: "embedding" },
        el(
          "div",
          { class: "plane" },
          scatter.node,
          key(run, known, (label) => scatter.choose(known.map((one) => one.label === label))),
        ),
        detail,
      ),
    ],
  };
}

/** The classes as buttons, each with its colour. */
function key(run, known, choose) {
  const labels = [...new Set(known.map((one) => one.label))]
    .filter((label) => label !== undefined)
    .sort((a, b) => a - b);
  return el(
    "ul",
    { class: "key", "aria-label": "classes" },
    labels
      .slice(0, 40)
      .map((label) =>
        el(
          "li",
          {},
          el(
            "button",
            { type: "button", on: { click: () => choose(label) } },
            el("span", { class: "swatch", vars: { background: classColour(label) } }),
            className(run, label),
          ),
        ),
      ),
  );
}

function scatterPlot(points, known, show) {
  const node = el("canvas", {
    class: "scatter",
    role: "img",
    "aria-label": `${known.length} samples in the plane; drag to choose some`,
    tabindex: "0",
  });
  const pen = node.getContext("2d");
  const range = [0, 1].map((axis) => extent(points, axis));
  let [chosen, box] = [null, null];
  const at = (i) =>
    [0, 1].map((axis) => {
      const [low, high] = range[axis];
      const share = (points[2 * i + axis] - low) / (high - low || 1);
      const size = axis ? node.clientHeight : node.clientWidth;
      return MARGIN + (axis ? 1 - share : share) * (size - 2 * MARGIN);
    });

  function draw() {
    const scale = window.devicePixelRatio || 1;
    [node.width, node.height] = [node.clientWidth * scale, node.clientHeight * scale];
    pen.scale(scale, scale);
    const radius = known.length > 4000 ? 1.6 : 3;
    for (const pass of [false, true]) {
      known.forEach((one, i) => {
        if (Boolean(chosen?.[i]) !== pass) return;
        const [x, y] = at(i);
        pen.globalAlpha = chosen && !pass ? 0.12 : 0.8;
        pen.fillStyle = classColour(one.label);
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
      });
    }
    pen.globalAlpha = 1;
    if (box) {
      pen.strokeStyle = getComputedStyle(node).color;
      pen.setLineDash([4, 3]);
      pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    }
  }

  function choose(which) {
    chosen = which.some(Boolean) ? which : null;
    box = null;
    draw();
    show(chosen);
  }

  function pick() {
    const [left, right] = [box[0], box[2]].sort((a, b) => a - b);
    const [top, bottom] = [box[1], box[3]].sort((a, b) => a - b);
    chosen = known.map((_, i) => {
      const [x, y] = at(i);
      return x >= left && x <= right && y >= top && y <= bottom;
    });
    if (!chosen.some(Boolean)) [chosen, box] = [null, null];
    draw();
    show(chosen);
  }

  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    box = [event.offsetX, event.offsetY, event.offsetX, event.offsetY];
  });
  node.addEventListener("pointermove", (event) => {
    if (!box || !node.hasPointerCapture(event.pointerId)) return;
    [box[2], box[3]] = [event.offsetX, event.offsetY];
    draw();
  });
  node.addEventListener("pointerup", () => box && pick());
  const watched = new ResizeObserver(draw);
  watched.observe(node);
  return { node, choose, leave: () => watched.disconnect() };
}

function extent(points, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = axis; i < points.length; i += 2) {
    low = Math.min(low, points[i]);
    high = Math.max(high, points[i]);
  }
  return [low, high];
}

/** What the chosen samples have in common: classes, the filters that answer more to them, pictures. */
function brushed(run, layer, found, known, chosen, lookup) {
  if (!chosen) return [el("p", { class: "empty" }, "Nothing chosen.")];
  const samples = known.filter((_, i) => chosen[i]);
  const labels = new Map();
  for (const one of samples) if (one.label !== undefined) labels.set(one.label, (labels.get(one.label) ?? 0) + 1);
  const mix = [...labels].sort((a, b) => b[1] - a[1]).slice(0, 6);
  const words = mix.map(([label, times]) => `${className(run, label)} ${percent(times / samples.length)}`).join(", ");
  const wrong = samples.filter((one) => one.correct === 0).length;
  return [
    el("h2", {}, plural(samples.length, "sample")),
    el("p", {}, words, wrong ? ` · ${percent(wrong / samples.length)} wrong` : ""),
    found.response
      ? el(
          "div",
          {},
          el("h3", {}, "Filters that answer more to them than to the rest"),
          cardList(telling(run, layer, found.response, chosen)),
        )
      : null,
    el("h3", {}, "Some of them"),
    sampleList(
      run,
      samples.slice(0, 24).map((one) => one.sample),
      lookup,
    ),
  ].filter(Boolean);
}

/** Cards of the filters with the greatest difference of means, in standard deviations. */
function telling(run, layer, response, chosen) {
  const [count, filters] = response.shape;
  const inside = chosen.filter(Boolean).length;
  const effects = [];
  for (let f = 0; f < filters; f++) {
    let [sum, square, mine] = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const value = response[i * filters + f];
      sum += value;
      square += value * value;
      if (chosen[i]) mine += value;
    }
    const spread = Math.sqrt(Math.max(square / count - (sum / count) ** 2, 1e-9));
    const rest = count > inside ? (sum - mine) / (count - inside) : sum / count;
    effects.push([f, (mine / inside - rest) / spread]);
  }
  effects.sort((a, b) => b[1] - a[1]);
  return effects
    .slice(0, 6)
    .map(([f, effect]) => filterCard(index.runs.indexOf(run), layer, f, `+${number(effect)} std`));
}
