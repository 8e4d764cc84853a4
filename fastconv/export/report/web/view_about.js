// What made the run, what the page does without, and how to use it.

import { index } from "./data.js";
import { el } from "./dom.js";

export const KEYS = [
  ["/", "find"],
  ["← →", "previous and next filter or class; in a grid: from card to card"],
  ["↑ ↓", "in a grid: up and down"],
  ["Enter", "open"],
  ["u", "up: from a filter to its layer"],
  ["1 … 5", "the views at the top"],
  ["t", "light or dark"],
  ["?", "these keys"],
];

export function aboutView() {
  return {
    title: "About",
    nodes: [
      el("header", { class: "page-head" }, el("h1", {}, "About this page")),
      index.runs.map((run) => [
        el(
          "section",
          { class: "panel" },
          el("h2", {}, run.file),
          el(
            "dl",
            { class: "pairs" },
            run.facts.map(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]),
          ),
        ),
        aboutLacking(run),
      ]),
      el("section", { class: "panel" }, el("h2", {}, "Keys"), keyTable()),
      el(
        "section",
        { class: "panel" },
        el("h2", {}, "What the words mean"),
        el(
          "dl",
          { class: "pairs" },
          Object.values(index.columns)
            .filter((column) => column.help)
            .map((column) => [el("dt", {}, column.label), el("dd", {}, column.help)]),
        ),
      ),
    ],
  };
}

function aboutLacking(run) {
  const rows = [...run.lacks, ...Object.entries(run.missing)];
  if (!rows.length) return null;
  return el(
    "section",
    { class: "panel" },
    el("h2", {}, "Not in this page, and what would keep it"),
    el(
      "dl",
      { class: "pairs" },
      rows.map(([what, call]) => [el("dt", {}, what), el("dd", {}, el("code", {}, call))]),
    ),
  );
}

export function keyTable() {
  return el(
    "dl",
    { class: "pairs keys" },
    KEYS.map(([key, meaning]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, meaning)]),
  );
}
