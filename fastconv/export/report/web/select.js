// Which filters are asked for, and in which order: numbers in typed arrays, as there may be 100,000.

import { filterName } from "./card.js";

export const SHOWN = {
  all: () => true,
  alive: (t, i) => !(t.dead?.[i] > 0),
  dead: (t, i) => t.dead?.[i] > 0,
  sparse: (t, i) => t.positive?.[i] < 0.05 && !(t.dead[i] > 0),
  selective: (t, i) => t.standout?.[i] >= 8,
};
export const COMPARISONS = { ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b };

/** The filters that fit a query, sorted by a column: {length, at(i): {layer, table, filter}}. */
export function selectFilters(layers, tables, query, sort) {
  const fits = fitting(query);
  const total = layers.reduce((sum, layer) => sum + layer.filters, 0);
  const [layerOf, filterOf, keys] = [new Uint16Array(total), new Uint32Array(total), new Float32Array(total)];
  let count = 0;
  layers.forEach((layer, l) => {
    const table = tables[l];
    for (let filter = 0; filter < layer.filters; filter++) {
      if (!fits(layer, table, filter)) continue;
      [layerOf[count], filterOf[count], keys[count]] = [l, filter, table[sort]?.[filter] ?? NaN];
      count++;
    }
  });
  const order =
    sort === "filter" ? Uint32Array.from({ length: count }, (_, i) => i) : ordered(keys, count, query.up === "1");
  if (sort === "filter" && query.up === "0") order.reverse();
  const at = (i) => ({
    layer: layers[layerOf[order[i]]],
    table: tables[layerOf[order[i]]],
    filter: filterOf[order[i]],
  });
  return { length: count, at };
}

/** Places sorted by their keys; those without a key come last, whichever the direction. */
function ordered(keys, count, up) {
  const places = Uint32Array.from({ length: count }, (_, i) => i);
  const known = places.filter((i) => !Number.isNaN(keys[i]));
  known.sort(up ? (a, b) => keys[a] - keys[b] : (a, b) => keys[b] - keys[a]);
  const unknown = places.filter((i) => Number.isNaN(keys[i]));
  places.set(known);
  places.set(unknown, known.length);
  return places;
}

function fitting(query) {
  const show = SHOWN[query.show] ?? SHOWN.all;
  const words = (query.find ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const where = condition(query);
  return (layer, table, filter) =>
    show(table, filter) && where(layer, table, filter) && words.every((word) => matches(word, layer, table, filter));
}

function condition({ column: name, is, value }) {
  const compare = COMPARISONS[is ?? ">"];
  if (!name || value === undefined || value === "" || !compare) return () => true;
  return (layer, table, filter) => {
    if (!table[name]) return false;
    const texts = layer.table.texts[name];
    if (texts) return texts[table[name][filter]].toLowerCase().includes(value.toLowerCase());
    return compare(table[name][filter], Number(value));
  };
}

/** Whether a word of the search is in the filter's name or in one of its texts. */
function matches(word, layer, table, filter) {
  if (/^\d+$/.test(word)) return filter === Number(word) || layer.name.toLowerCase().includes(word);
  if (filterName(layer, filter).replaceAll(" ", "").toLowerCase().includes(word)) return true;
  return Object.entries(layer.table.texts).some(([name, texts]) =>
    texts[table[name][filter]].toLowerCase().includes(word),
  );
}
