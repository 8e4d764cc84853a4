// Classes: the filters that tell them, and samples of them.

import { index, plain } from "./data.js";
import { el, later } from "./dom.js";
import { cardList, filterCard } from "./card.js";
import { boxedPicture } from "./draw.js";
import { count, number, percent, plural } from "./format.js";
import { href } from "./route.js";
import { classTitle, className, sampleLookup } from "./samples.js";

export function classesView({ query }) {
  const run = index.runs[Number(query.run) || 0] ?? index.runs[0];
  const list = el(
    "ol",
    { class: "class-list" },
    run.classes.map((found, i) =>
      el(
        "li",
        {},
        el(
          "a",
          { href: href(["class", i], query) },
          el("b", {}, classTitle(found.name)),
          el("span", {}, plural(found.count, "sample")),
        ),
      ),
    ),
  );
  return {
    title: "Classes",
    nodes: [
      el("header", { class: "page-head" }, el("h1", {}, "Classes")),
      run.classes.length
        ? list
        : el("p", { class: "missing" }, "The data set has no labels: give samples as (x, y), or y in a dict."),
      run.misfires !== null ? classMisfires(run) : null,
      run.classes.length && run.missing.misfires
        ? el("p", { class: "missing" }, `Misfires: ${run.missing.misfires}`)
        : null,
    ].filter(Boolean),
  };
}

export async function classView({ parts, query }) {
  const run = index.runs[Number(query.run) || 0] ?? index.runs[0];
  const number_ = Number(parts[1]);
  const found = run.classes[number_];
  if (!found)
    return {
      title: "No such class",
      nodes: [el("h1", {}, "No such class"), el("p", { class: "missing" }, `There is no class ${parts[1]}.`)],
    };
  const [{ told, seen, samples }, lookup] = await Promise.all([plain(found.chunk), sampleLookup(run)]);
  const card = (layer, filter, note) => filterCard(index.runs.indexOf(run), run.layers[layer], filter, note);
  const best = told.map(([layer, filter, auroc, effect]) =>
    card(layer, filter, `AUROC ${number(auroc)}, effect ${number(effect)}`),
  );
  const pure = seen.map(([layer, filter, share]) => card(layer, filter, `${percent(share)} of its hits`));
  return {
    title: classTitle(found.name),
    up: href(["classes"], query),
    previous: number_ > 0 ? href(["class", number_ - 1], query) : null,
    next: number_ + 1 < run.classes.length ? href(["class", number_ + 1], query) : null,
    nodes: [
      el(
        "header",
        { class: "page-head" },
        el("p", { class: "crumbs" }, el("a", { href: href(["classes"], query) }, "Classes"), " /"),
        el("h1", {}, classTitle(found.name)),
        el("p", { class: "about" }, plural(found.count, "sample")),
      ),
      section("Filters that tell it from the others", best, run.missing.classes ?? "None does."),
      section("Filters whose strongest hits are mostly of it", pure, "There are none."),
      samples.length ? el("section", {}, el("h2", {}, "Some of its samples"), sampleList(run, samples, lookup)) : null,
    ].filter(Boolean),
  };
}

function section(title, cards, otherwise) {
  return el(
    "section",
    {},
    el("h2", {}, title),
    cards.length ? cardList(cards) : el("p", { class: "missing" }, otherwise),
  );
}

/** Samples with their pictures where the file has them, else by name. */
export function sampleList(run, samples, lookup) {
  const items = samples.map((sample) => {
    const known = lookup(sample);
    const wrong = known.correct === 0 ? ` → ${className(run, known.prediction)}` : "";
    return el(
      "li",
      { class: wrong ? "wrong" : "" },
      known.hasPicture && later(boxedPicture(known.picture, null, null, 84, "")),
      el("span", {}, known.name ?? `#${count(sample)}`, wrong),
    );
  });
  return el("ul", { class: "samples" }, items);
}

function classMisfires(run) {
  const shown = plain(run.misfires).then((rows) => {
    const cards = rows
      .slice(0, 24)
      .map((row) =>
        filterCard(
          index.runs.indexOf(run),
          run.layers[row.layer],
          row.filter,
          `${classTitle(row.class)}: lift ${number(row.lift ?? Infinity)}, rate ${percent(row.rate)}`,
        ),
      );
    return cards.length ? cardList(cards) : el("p", { class: "empty" }, "None.");
  });
  return el("section", {}, el("h2", {}, "Filters that fire on wrong outcomes, worst first"), later(shown));
}
