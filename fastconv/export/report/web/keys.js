// The keyboard, the search box, light and dark.

import { index } from "./data.js";
import { el } from "./dom.js";
import { go, href } from "./route.js";
import { filterHref } from "./card.js";
import { keyTable } from "./view_about.js";

const THEMES = { auto: "◐", light: "☀", dark: "☾" };

/** Listen to keys; `current()` is the view that is shown, `views` the addresses of all. */
export function listenToKeys(current, views) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.closest("input, select, textarea, dialog")) return;
    const view = current();
    const actions = {
      "/": () => document.getElementById("query").focus(),
      "?": showHelp,
      t: turnTheme,
      u: () => view.up && go(view.up),
      ArrowLeft: () => view.previous && go(view.previous),
      ArrowRight: () => view.next && go(view.next),
      ...Object.fromEntries(views.map((address, i) => [i + 1, () => go(address)])),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** "conv1/12" goes to the filter, anything else to the filters that it finds. */
export function listenToSearch() {
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = document.getElementById("query").value.trim();
    const [, name, filter] = text.match(/^(.*?)\s*[/ ]\s*(\d+)$/) ?? [];
    const layer = index.runs[0].layers.find((found) => found.name === name);
    go(layer && Number(filter) < layer.filters ? filterHref(layer, Number(filter)) : href(["filters"], { find: text }));
  });
}

export function listenToButtons() {
  document.getElementById("help-button").addEventListener("click", showHelp);
  document.getElementById("theme-button").addEventListener("click", turnTheme);
  document.querySelector("[data-skip]").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  setTheme(stored() ?? "auto");
}

function showHelp() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(
    el("h2", { id: "help-title" }, "Keys"),
    keyTable(),
    el("form", { method: "dialog" }, el("button", {}, "Close")),
  );
  dialog.showModal();
}

function turnTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length]);
}

function setTheme(name) {
  document.documentElement.dataset.theme = name in THEMES ? name : "auto";
  const button = document.getElementById("theme-button");
  button.textContent = THEMES[document.documentElement.dataset.theme];
  button.setAttribute("aria-label", `colours: ${document.documentElement.dataset.theme}; change`);
  try {
    localStorage.setItem("fastconv-theme", document.documentElement.dataset.theme);
  } catch {
    // a page opened from a folder may not be allowed to remember
  }
}

function stored() {
  try {
    return localStorage.getItem("fastconv-theme");
  } catch {
    return null;
  }
}
