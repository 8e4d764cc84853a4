// A grid of thousands of cards, of which only those in sight exist.

import { discard, el } from "./dom.js";

const GAP = 14;
const SPARE_ROWS = 1; // above and below the window
const PAUSE = 150; // milliseconds: cards that are scrolled past are not made

/**
 * A list of `items` (their length, and at(i)), each made by `make(item)` when it comes into sight.
 *
 * All cards are equally high: the first one is measured. The arrow keys go from card to card.
 */
export function cardGrid(items, make, { minimum, label }) {
  const list = el("ul", { class: "cards", "aria-label": label });
  let [columns, rowHeight, first, last] = [1, 0, 0, -1];

  function measure() {
    const width = list.clientWidth;
    columns = Math.max(1, Math.floor((width + GAP) / (minimum + GAP)));
    list.style.setProperty("--columns", columns);
    if (!rowHeight && items.length) {
      const probe = card(0);
      list.append(probe);
      rowHeight = probe.offsetHeight + GAP;
      discard(probe);
    }
    list.style.setProperty("height", `${Math.ceil(items.length / columns) * rowHeight}px`);
    [first, last] = [0, -1];
    list.replaceChildren();
    show();
  }

  function card(i) {
    const node = el("li", { "aria-posinset": i + 1, "aria-setsize": items.length }, make(items.at(i)));
    node.dataset.index = i;
    node.style.setProperty("--row", `${Math.floor(i / columns) * rowHeight}px`);
    node.style.setProperty("--column", i % columns);
    return node;
  }

  function show(everything = false) {
    if (!list.isConnected || !rowHeight) return;
    const top = -list.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / rowHeight) - SPARE_ROWS) * columns;
    const to = Math.min(items.length, (Math.ceil((top + innerHeight) / rowHeight) + SPARE_ROWS) * columns);
    const wanted = everything ? [0, Math.min(items.length, 400)] : [from, Math.max(from, to)];
    if (wanted[0] === first && wanted[1] === last) return;
    for (const node of [...list.children]) {
      const i = Number(node.dataset.index);
      if ((i < wanted[0] || i >= wanted[1]) && !node.contains(document.activeElement)) discard(node);
    }
    const there = new Set([...list.children].map((node) => Number(node.dataset.index)));
    for (let i = wanted[0]; i < wanted[1]; i++) {
      if (there.has(i)) continue;
      const after = [...list.children].find((node) => Number(node.dataset.index) > i);
      list.insertBefore(card(i), after ?? null);
    }
    [first, last] = wanted;
  }

  /** Move the focus to another card, wherever it is. */
  function move(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const here = event.target.closest("li");
    if (!(event.key in steps) || !here || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = Number(here.dataset.index) + steps[event.key];
    if (next < 0 || next >= items.length) return;
    event.preventDefault();
    const y = list.getBoundingClientRect().top + Math.floor(next / columns) * rowHeight;
    if (y < 120 || y + rowHeight > innerHeight) scrollBy(0, y - innerHeight / 2 + rowHeight / 2);
    show();
    list.querySelector(`[data-index="${next}"] a`)?.focus({ preventScroll: true });
  }

  const stop = new AbortController();
  const listen = (target, name, listener) =>
    target.addEventListener(name, listener, { signal: stop.signal, passive: true });
  let due = 0;
  listen(window, "scroll", () => {
    due ||= setTimeout(() => {
      due = 0;
      show();
    }, PAUSE);
  });
  listen(window, "beforeprint", () => show(true));
  list.addEventListener("keydown", move);
  let width = 0;
  const watched = new ResizeObserver(() => {
    if (!list.isConnected || list.clientWidth === width) return;
    width = list.clientWidth;
    measure();
  });
  watched.observe(list);
  return {
    node: list,
    leave() {
      stop.abort();
      watched.disconnect();
    },
  };
}
