// The frame of what a view says: panels, tables, and what is missing.

import { el } from "./dom.js";

export function panel(title, className_, ...content) {
  return el("section", { class: `panel ${className_}` }, el("h2", {}, title), content);
}

export function scrolling(heads, rows) {
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

export function missing(what, call) {
  return el(
    "p",
    { class: "missing" },
    `The run kept no ${what}. `,
    el("code", {}, `fastconv.extract(..., ${call})`),
    " keeps it.",
  );
}
