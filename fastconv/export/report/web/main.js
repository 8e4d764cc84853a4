// Shows the view that the address names.

import { announce, discard, el } from "./dom.js";
import { listenToButtons, listenToKeys, listenToSearch } from "./keys.js";
import { href, parse } from "./route.js";
import { aboutView } from "./view_about.js";
import { classesView, classView } from "./view_classes.js";
import { embeddingView } from "./view_embedding.js";
import { filtersView } from "./view_filters.js";
import { filterView } from "./view_filter.js";
import { networkView } from "./view_network.js";

const TABS = [
  ["Network", [], ["", "network"]],
  ["Filters", ["filters"], ["filters", "filter"]],
  ["Classes", ["classes"], ["classes", "class"]],
  ["Embedding", ["embedding"], ["embedding"]],
  ["About", ["about"], ["about"]],
];
const VIEWS = {
  network: networkView,
  filters: filtersView,
  filter: filterView,
  classes: classesView,
  class: classView,
  embedding: embeddingView,
  about: aboutView,
};
const main = document.getElementById("main");
const tabs = TABS.map(([name, parts]) => el("a", { href: href(parts) }, name));
const scrolled = new Map(); // by entry of the history: how far down its view was
const pageTitle = document.title;
let shown = { nodes: [] };
let turn = 0;
let entry = null;

async function show() {
  const mine = ++turn;
  const address = parse(location.hash);
  const name = address.parts[0] ?? "network";
  const view =
    VIEWS[name] ??
    (() => ({
      title: "Nothing here",
      nodes: [el("h1", {}, "Nothing here"), el("p", {}, el("a", { href: "#/" }, "The network"))],
    }));
  let next;
  try {
    next = await view(address);
  } catch (error) {
    next = {
      title: "Cannot be shown",
      nodes: [el("h1", {}, "This cannot be shown"), el("p", { class: "missing" }, error.message)],
    };
  }
  if (mine !== turn) return; // the address has changed meanwhile
  const focused = document.activeElement?.dataset?.focus;
  shown.leave?.();
  shown = next;
  tabs.forEach((tab, i) => {
    if (TABS[i][2].includes(address.parts[0] ?? "")) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  });
  for (const old of [...main.children]) discard(old);
  main.replaceChildren(...next.nodes.flat(Infinity).filter(Boolean));
  main.dataset.view = name;
  document.title = `${next.title} · ${pageTitle}`;
  const again = focused && main.querySelector(`[data-focus="${focused}"]`);
  if (again) again.focus({ preventScroll: true });
  else if (turn > 1) main.focus({ preventScroll: true });
  announce(next.title);
  restoreScroll();
}

/** Each step of the history remembers how far down it was. */
function restoreScroll() {
  entry = history.state?.entry ?? null;
  if (entry === null) {
    entry = `${Date.now()}-${Math.random()}`;
    history.replaceState({ entry }, "");
  }
  scrollDown(scrolled.get(entry) ?? 0, turn);
}

/** Scroll as soon as the page is long enough: a grid grows when it has been laid out. */
function scrollDown(top, mine, tries = 30) {
  scrollTo(0, top);
  if (Math.abs(scrollY - top) > 1 && tries && mine === turn)
    requestAnimationFrame(() => scrollDown(top, mine, tries - 1));
}

history.scrollRestoration = "manual";
addEventListener("scroll", () => entry !== null && scrolled.set(entry, scrollY), { passive: true });
addEventListener("hashchange", () => {
  entry = null;
  show();
});
document.getElementById("views").append(...tabs);
listenToButtons();
listenToSearch();
listenToKeys(
  () => shown,
  TABS.map(([, parts]) => href(parts)),
);
show();
