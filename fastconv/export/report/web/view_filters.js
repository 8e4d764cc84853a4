// The grid of filters: sorted and filtered by any column, searched by name.

import { arrays, column, index } from "./data.js";
import { announce, el } from "./dom.js";
import { cardWidth, filterCard, inEveryRun } from "./card.js";
import { formatted, plural } from "./format.js";
import { cardGrid } from "./grid.js";
import { go, href } from "./route.js";
import { COMPARISONS, selectFilters, SHOWN } from "./select.js";

export async function filtersView({ query }) {
  const number_ = Number(query.run) || 0;
  const run = index.runs[number_] ?? index.runs[0];
  const chosen = run.layers.filter((layer) => !query.layer || layer.name === query.layer);
  if (!chosen.length)
    return { title: "Filters", nodes: [el("p", { class: "missing" }, `There is no layer ${query.layer}.`)] };
  const tables = await Promise.all(chosen.map((layer) => arrays(layer.table)));
  const names = Object.keys(index.columns).filter((name) => tables.some((table) => table[name]));
  const sort = names.includes(query.sort) ? query.sort : query.sort === "filter" ? "filter" : (names[0] ?? "filter");
  const found = selectFilters(chosen, tables, query, sort);
  const change = (changes) => go(href(["filters"], { ...query, ...changes }));
  const note = ({ layer, table, filter }) => {
    if (sort === "filter" || !table[sort]) return null;
    const { values, texts, format, label } = column(layer, table, sort);
    return `${label} ${formatted(values[filter], format, texts)}`;
  };
  const heading = query.layer || "All layers";
  const grid = cardGrid(
    found,
    (item) => filterCard(number_, item.layer, item.filter, note(item), inEveryRun(item.layer)),
    {
      minimum: cardWidth(index.runs.length),
      label: `filters of ${heading}`,
    },
  );
  announce(`${plural(found.length, "filter")} shown`);
  return {
    title: heading,
    leave: grid.leave,
    nodes: [
      el(
        "header",
        { class: "page-head" },
        el("h1", {}, heading),
        el("p", { class: "about" }, summary(found, chosen, query)),
      ),
      toolbar(run, query, names, sort, chosen, change),
      found.length
        ? grid.node
        : el(
            "p",
            { class: "empty" },
            "No filter is like that. ",
            el("a", { href: href(["filters"], { layer: query.layer }) }, "Show all"),
          ),
    ],
  };
}

function summary(found, chosen, query) {
  const all = chosen.reduce((sum, layer) => sum + layer.filters, 0);
  const ranks = chosen.find((layer) => layer.patches);
  const kept =
    ranks && ranks.kept_ranks > ranks.patches.ranks
      ? ` Of ${ranks.kept_ranks} patches a filter, the strongest ${ranks.patches.ranks} are in this page.`
      : "";
  const without = chosen.every((layer) => !layer.patches)
    ? " The run kept no patches: fastconv.extract(..., patches=True) keeps them."
    : "";
  return `${found.length === all ? plural(all, "filter") : `${plural(found.length, "filter")} of ${all}`}.${kept}${without}`;
}

function toolbar(run, query, names, sort, chosen, change) {
  const about = (name) => index.columns[name];
  const columns = names.map((name) => [name, about(name).label]);
  const text = query.column && chosen.some((layer) => layer.table.texts[query.column]);
  const up = query.up ? query.up === "1" : sort === "filter";
  return el(
    "form",
    { class: "toolbar", "aria-label": "Sort and filter", on: { submit: (event) => event.preventDefault() } },
    picker(
      "Layer",
      query.layer ?? "",
      [["", "all layers"], ...run.layers.map((layer) => [layer.name, layer.name])],
      (layer) => change({ layer }),
    ),
    picker(
      "Sort by",
      sort,
      [["filter", "number"], ...columns],
      (name) => change({ sort: name, up: "" }),
      about(sort)?.help,
    ),
    el(
      "button",
      {
        type: "button",
        class: "icon",
        id: "direction",
        "aria-label": up ? "ascending; turn round" : "descending; turn round",
        title: up ? "ascending" : "descending",
        on: { click: () => change({ up: up ? "0" : "1" }) },
      },
      up ? "↑" : "↓",
    ),
    picker(
      "Show",
      query.show ?? "all",
      Object.keys(SHOWN).map((name) => [name, name]),
      (show) => change({ show: show === "all" ? "" : show }),
    ),
    el(
      "fieldset",
      { class: "where" },
      el("legend", {}, "Where"),
      picker(
        "column",
        query.column ?? "",
        [["", "any column"], ...columns],
        (name) => change({ column: name }),
        null,
        true,
      ),
      !text &&
        picker(
          "is",
          query.is ?? ">",
          Object.keys(COMPARISONS).map((sign) => [sign, sign]),
          (is) => change({ is }),
          null,
          true,
        ),
      input("value", query.value ?? "", text ? "text" : "number", text ? "text" : "value", (value) =>
        change({ value }),
      ),
    ),
    input("Search", query.find ?? "", "search", "name, kind, class", (find) => change({ find })),
  );
}

function picker(label, value, options, choose, help = null, quiet = false) {
  const select = el(
    "select",
    { title: help, "data-focus": `pick-${label}`, on: { change: (event) => choose(event.target.value) } },
    options.map(([name, text]) => el("option", { value: name, selected: name === value }, text)),
  );
  return el("label", {}, el("span", { class: quiet ? "hidden" : "" }, label), select);
}

function input(label, value, type, placeholder, choose) {
  const field = el("input", {
    type,
    value,
    placeholder,
    step: type === "number" ? "any" : null,
    "data-focus": `input-${label}`,
    on: { change: (event) => choose(event.target.value) },
  });
  return el("label", {}, el("span", { class: label === "value" ? "hidden" : "" }, label), field);
}
