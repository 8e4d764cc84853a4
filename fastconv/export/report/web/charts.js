// Charts as SVG: they follow the theme and print sharply.

import { el, svg } from "./dom.js";
import { number } from "./format.js";
import { chartSvg } from "./draw.js";

/** The quantiles of a layer's filters, sorted by their median: 1–99 %, 25–75 % and the median. */
export function ribbon(quantiles, width, height, label) {
  const count = quantiles[2].length;
  const low = Math.min(0, ...quantiles[0]);
  const high = Math.max(0, ...quantiles[4]);
  const y = (value) => (1 + ((high - value) / (high - low || 1)) * (height - 2)).toFixed(1);
  const x = (i) => (count > 1 ? (i / (count - 1)) * width : width / 2).toFixed(1);
  const line = (row) => row.map((value, i) => `${x(i)} ${y(value)}`);
  const band = (a, b) =>
    count > 1
      ? `M${line(quantiles[a]).join("L")}L${line(quantiles[b]).reverse().join("L")}Z`
      : `M${width / 2 - 4} ${y(quantiles[a][0])}h8V${y(quantiles[b][0])}h-8Z`;
  const chart = chartSvg(
    width,
    height,
    label,
    svg("path", { class: "band outer", d: band(0, 4) }),
    svg("path", { class: "band inner", d: band(1, 3) }),
    svg("path", { class: "zero", d: `M0 ${y(0)}H${width}` }),
    count > 1 ? svg("path", { class: "median", d: `M${line(quantiles[2]).join("L")}` }) : null,
  );
  chart.setAttribute("preserveAspectRatio", "none");
  return { chart, low, high };
}

/** The histogram of a filter as bars from its minimum to its maximum; grey below 0. */
export function bars(heights, low, high, width, height, label) {
  const split = high > low ? (-low / (high - low)) * heights.length : low > 0 ? 0 : heights.length;
  const step = width / heights.length;
  const path = (above) => {
    let d = "";
    for (let i = 0; i < heights.length; i++) {
      const from = above ? Math.max(i, split) : i;
      const to = above ? i + 1 : Math.min(i + 1, split);
      if (heights[i] && to > from) {
        const tall = (heights[i] / 255) * height;
        d += `M${(from * step).toFixed(2)} ${height}V${(height - tall).toFixed(1)}H${(to * step).toFixed(2)}V${height}Z`;
      }
    }
    return d;
  };
  const chart = chartSvg(
    width,
    height,
    label,
    svg("path", { class: "bar below", d: path(false) }),
    svg("path", { class: "bar above", d: path(true) }),
  );
  chart.setAttribute("preserveAspectRatio", "none");
  return chart;
}

/** The distribution of a filter with its axis, and a tick for each of its hits. */
export function distribution(heights, low, high, hits, label) {
  const [width, height, foot] = [innerWidth < 720 ? 340 : 640, 150, 34];
  const chart = chartSvg(width, height + foot, label);
  chart.classList.add("wide");
  chart.append(...bars(heights, low, high, width, height).childNodes);
  const x = (value) => (high > low ? ((value - low) / (high - low)) * width : width / 2);
  chart.append(svg("path", { class: "axis", d: `M0 ${height}H${width}` }));
  for (const value of hits) {
    if (Number.isFinite(value)) chart.append(svg("path", { class: "tick", d: `M${x(value)} ${height + 2}v8` }));
  }
  const marks = high > low ? [low, ...(low < 0 && high > 0 ? [0] : []), high] : [low];
  for (const value of marks) {
    const at = x(value);
    const anchor = at < 20 ? "start" : at > width - 20 ? "end" : "middle";
    if (value === 0 && (at < 60 || at > width - 60) && value !== low && value !== high) continue;
    chart.append(svg("text", { class: "label", x: at, y: height + 28, "text-anchor": anchor }, number(value)));
  }
  return chart;
}

/** A value with its interval for each condition, around zero. */
export function intervals(rows, label) {
  const finite = rows.flatMap((row) => [row.value, row.low, row.high]).filter(Number.isFinite);
  const reach = Math.max(1e-12, ...finite.map(Math.abs)) * 1.08;
  const [width, step, left] = [420, 26, 110];
  const x = (value) => left + ((value + reach) / (2 * reach)) * (width - left);
  const height = rows.length * step + 24;
  const chart = chartSvg(width, height, label, svg("path", { class: "zero", d: `M${x(0)} 0V${height - 20}` }));
  chart.classList.add("wide", "narrow");
  rows.forEach((row, i) => {
    const y = i * step + step / 2;
    chart.append(svg("text", { class: "label", x: left - 8, y: y + 4, "text-anchor": "end" }, row.name));
    if (Number.isFinite(row.low))
      chart.append(svg("path", { class: "interval", d: `M${x(row.low)} ${y}H${x(row.high)}` }));
    if (Number.isFinite(row.value)) chart.append(svg("circle", { class: "dot", cx: x(row.value), cy: y, r: 4 }));
  });
  for (const [value, anchor] of [
    [-reach / 1.08, "middle"],
    [0, "middle"],
    [reach / 1.08, "end"],
  ]) {
    chart.append(svg("text", { class: "label", x: x(value), y: height - 4, "text-anchor": anchor }, number(value)));
  }
  return chart;
}

/** A share of something as a bar. */
export function meter(share, text) {
  return el(
    "span",
    { class: "meter" },
    el("span", { class: "meter-fill", vars: { width: `${Math.max(0, Math.min(1, share || 0)) * 100}%` } }),
    el("span", { class: "meter-text" }, text),
  );
}
