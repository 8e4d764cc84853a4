// Pictures of a filter: what it saw, its weights, its activation maps.

import { diverging, viridis } from "./colours.js";
import { arrays, picture, PER_CHUNK } from "./data.js";
import { el, svg } from "./dom.js";

/** A canvas of this many CSS pixels. */
function canvas(width, height, label) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const node = el("canvas", {
    width: Math.round(width * scale),
    height: Math.round(height * scale),
    vars: { width: `${width}px`, height: `${height}px` },
    ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }),
  });
  const pen = node.getContext("2d");
  pen.scale(scale, scale);
  return [node, pen];
}

/** Where the tiles of a block lie: columns and rows for tiles of this aspect. */
export function arrangement(count, aspect) {
  if (aspect > 1.8) return [1, Math.min(count, 4)];
  const side = count >= 9 ? 3 : count >= 4 ? 2 : 1;
  return [side, Math.min(side, Math.ceil(count / side))];
}

/** The strongest patches of a filter, as a block of this width. */
export async function patchBlock(layer, filter, width, label) {
  const { patches } = layer;
  if (patches.kind === "wave") return waveBlock(layer, filter, width, label);
  const strip = await picture(patches.chunks[Math.floor(filter / PER_CHUNK)], filter % PER_CHUNK);
  const aspect = patches.width / patches.height;
  const [columns, rows] = arrangement(patches.ranks, aspect);
  const gap = 3;
  const tile = (width - gap * (columns - 1)) / columns;
  const high = tile / aspect;
  const [node, pen] = canvas(width, rows * high + gap * (rows - 1), label);
  for (let rank = 0; rank < Math.min(columns * rows, patches.ranks); rank++) {
    const x = (rank % columns) * (tile + gap);
    const y = Math.floor(rank / columns) * (high + gap);
    drawTile(pen, strip, patches, rank, x, y, tile, high);
  }
  strip.close();
  return node;
}

/** One patch of a filter. */
export async function patchPicture(layer, filter, rank, width, label) {
  const { patches } = layer;
  if (patches.kind === "wave") {
    const wave = await waves(patches, filter);
    return waveLines(wave, rank, width, width * 0.4, label);
  }
  const strip = await picture(patches.chunks[Math.floor(filter / PER_CHUNK)], filter % PER_CHUNK);
  const high = (width * patches.height) / patches.width;
  const [node, pen] = canvas(width, high, label);
  drawTile(pen, strip, patches, rank, 0, 0, width, high);
  strip.close();
  return node;
}

function drawTile(pen, strip, patches, rank, x, y, width, height) {
  pen.imageSmoothingEnabled = patches.width > 40;
  pen.imageSmoothingQuality = "high";
  const gap = patches.frames > 1 ? 2 : 0; // between the slices of a volume
  const wide = (width - gap * (patches.frames - 1)) / patches.frames;
  const source = patches.width / patches.frames;
  pen.strokeStyle = "rgb(128 128 128 / 35%)"; // a white patch on a white page
  for (let z = 0; z < patches.frames; z++) {
    const left = x + z * (wide + gap);
    pen.drawImage(strip, rank * patches.width + z * source, 0, source, patches.height, left, y, wide, height);
    pen.strokeRect(left + 0.5, y + 0.5, wide - 1, height - 1);
  }
}

async function waves(patches, filter) {
  const pack = await arrays(patches.packs[Math.floor(filter / PER_CHUNK)]);
  const [, ranks, channels, length] = pack.level.shape;
  const row = filter % PER_CHUNK;
  const each = ranks * channels * length;
  const level = pack.level.subarray(row * each, (row + 1) * each);
  return { level, channels, length, low: pack.low[row], high: pack.high[row] };
}

async function waveBlock(layer, filter, width, label) {
  const wave = await waves(layer.patches, filter);
  const rows = Math.min(layer.patches.ranks, 4);
  const height = (width - 2 * (rows - 1)) / rows;
  const lines = Array.from({ length: rows }, (_, rank) => waveLines(wave, rank, width, Math.min(height, width / 2)));
  return el("div", label ? { class: "waves", role: "img", "aria-label": label } : { class: "waves" }, lines);
}

/** The lines of one patch, with zero where it is in range. */
function waveLines(wave, rank, width, height, label) {
  const paths = [];
  for (let c = 0; c < wave.channels; c++) {
    const start = (rank * wave.channels + c) * wave.length;
    const points = Array.from(wave.level.subarray(start, start + wave.length), (level) => 1 - level / 255);
    paths.push(svg("path", { class: `wave wave-${c}`, d: linePath(points, width, height) }));
  }
  const zero = wave.high / (wave.high - wave.low || 1);
  const axis = zero > 0 && zero < 1 ? svg("path", { class: "zero", d: `M0 ${zero * height}H${width}` }) : null;
  return chartSvg(width, height, label, axis, ...paths.reverse());
}

/** A path through heights from 0, the top, to 1. */
export function linePath(heights, width, height) {
  const step = heights.length > 1 ? width / (heights.length - 1) : width;
  const points = heights.map((y, i) => `${(i * step).toFixed(1)} ${(1 + y * (height - 2)).toFixed(1)}`);
  return points.length > 1 ? `M${points.join("L")}` : `M0 ${points[0].split(" ")[1]}H${width}`;
}

export function chartSvg(width, height, label, ...children) {
  const named = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", ...named }, ...children);
}

/** Weights of a filter, read: {levels per channel, channel numbers, peak}. */
export async function weightsOf(layer, filter) {
  const { packs, shape } = layer.weights;
  const pack = await arrays(packs[Math.floor(filter / PER_CHUNK)]);
  const [, channels] = pack.channel.shape;
  const row = filter % PER_CHUNK;
  const each = shape.reduce((a, b) => a * b, 1);
  const start = row * channels * each;
  return {
    peak: pack.peak[row],
    channel: pack.channel.subarray(row * channels, (row + 1) * channels),
    level: Array.from({ length: channels }, (_, c) => pack.level.subarray(start + c * each, start + (c + 1) * each)),
  };
}

/** Whether a filter's weights can be shown in colour: a 2-D kernel over red, green and blue. */
export function isColour(layer) {
  return layer.weights.shape.length === 2 && layer.weights.of === 3 && !layer.weights.over_channels;
}

/** The whole kernel as one picture of this width: in colour, or its strongest channel. */
export async function weightPicture(layer, filter, width, label) {
  const found = await weightsOf(layer, filter);
  if (isColour(layer)) return colourKernel(found, layer.weights.shape, width, label);
  const { shape } = layer.weights;
  if (shape.length < 3 || width > 60) return kernelPicture(found.level[0], shape, width, label);
  const slice = shape[1] * shape[2]; // of a volume in little room: its middle
  const middle = Math.floor(shape[0] / 2) * slice;
  return kernelPicture(found.level[0].subarray(middle, middle + slice), shape.slice(1), width, label);
}

/** One input channel of a kernel: a line, a heat map, or a film strip of heat maps. */
export function kernelPicture(level, shape, width, label) {
  if (shape.length < 2) {
    const heights = Array.from(level, (value) => 0.5 - value / 254);
    const line = svg("path", { class: "wave wave-0", d: linePath(heights, width, width * 0.6) });
    const zero = svg("path", { class: "zero", d: `M0 ${width * 0.3}H${width}` });
    return chartSvg(width, width * 0.6, label, zero, line);
  }
  const colours = Uint8Array.from(level, (value) => value + 128);
  return frames(colours, shape, width, diverging, label);
}

function colourKernel(found, [height, width], size, label) {
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 127.5 + found.level[c][i];
    pixels.data[4 * i + 3] = 255;
  }
  return enlarged(pixels, size, (size * height) / width, label);
}

/** Values 0 ... 255 of [(z,) y, x] as heat maps, the slices of a volume side by side. */
export function frames(values, shape, width, colours, label) {
  const [height, across] = shape.slice(-2);
  const depth = shape.length > 2 ? shape[0] : 1;
  const gap = depth > 1 ? 1 : 0;
  const wide = depth * across + gap * (depth - 1);
  const pixels = new ImageData(wide, height);
  for (let z = 0; z < depth; z++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < across; x++) {
        const value = values[(z * height + y) * across + x];
        const at = 4 * (y * wide + z * (across + gap) + x);
        for (let c = 0; c < 3; c++) pixels.data[at + c] = colours[3 * value + c];
        pixels.data[at + 3] = 255;
      }
    }
  }
  return enlarged(pixels, width, (width * height) / wide, label);
}

function enlarged(pixels, width, height, label) {
  const small = new OffscreenCanvas(pixels.width, pixels.height);
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [node, pen] = canvas(width, height, label);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, width, height);
  return node;
}

/** The activation map of a filter for one of the kept samples, over the sample's picture if any. */
export async function mapPicture(layer, filter, which, width, label, behind = null) {
  const pack = await arrays(layer.maps.packs[Math.floor(filter / PER_CHUNK)]);
  const { shape } = layer.maps;
  const each = shape.reduce((a, b) => a * b, 1);
  const row = (filter % PER_CHUNK) * layer.maps.samples.length + which;
  const level = pack.level.subarray(row * each, (row + 1) * each);
  if (shape.length === 0) return el("span", { class: "number" }, String(level[0]));
  if (shape.length === 1) {
    const heights = Array.from(level, (value) => 1 - value / 255);
    return chartSvg(
      width,
      width * 0.4,
      label,
      svg("path", { class: "wave wave-0", d: linePath(heights, width, width * 0.4) }),
    );
  }
  const heat = frames(level, shape, width, viridis, label);
  if (!behind || shape.length > 2) return heat;
  const image = await behind();
  const pen = heat.getContext("2d");
  pen.globalAlpha = 0.45;
  pen.globalCompositeOperation = "luminosity";
  pen.imageSmoothingEnabled = image.width > 40;
  pen.drawImage(image, 0, 0, width, (width * shape[0]) / shape[1]);
  image.close();
  return heat;
}

/** A whole picture with the box of a hit in it. */
export async function boxedPicture(read, box, inputSize, width, label) {
  const image = await read();
  const height = (width * image.height) / image.width;
  const [node, pen] = canvas(width, height, label);
  pen.imageSmoothingEnabled = image.width > 40;
  pen.drawImage(image, 0, 0, width, height);
  image.close();
  if (box && inputSize) {
    const [scaleY, scaleX] = [height / inputSize.at(-2), width / inputSize.at(-1)];
    const [[top, bottom], [left, right]] = box.slice(-2);
    const inside = [left * scaleX, top * scaleY, (right - left) * scaleX, (bottom - top) * scaleY];
    for (const [colour, line] of [
      ["#000", 4],
      ["#ffd23f", 2],
    ]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(...clipped(inside, width, height));
    }
  }
  return node;
}

function clipped([x, y, w, h], width, height) {
  const [left, top] = [Math.max(x, 1), Math.max(y, 1)];
  return [left, top, Math.min(x + w, width - 1) - left, Math.min(y + h, height - 1) - top];
}
