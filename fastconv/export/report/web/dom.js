// Elements made of data: text is only ever text, whatever a layer or a file is called.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on` holds listeners, `vars` custom properties, null and false leave an attribute out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, { on = {}, vars = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(name, value);
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element that is replaced by what a promise gives; it says so when that fails. */
export function later(promise, className = "waiting") {
  const place = el("div", { class: className });
  promise.then(
    (node) => place.replaceWith(...[node].flat().filter(Boolean)),
    (error) => place.replaceWith(el("p", { class: "missing" }, `This cannot be shown: ${error.message}`)),
  );
  return place;
}

/** Remove an element, and give the memory of its pictures back at once. */
export function discard(node) {
  node.dataset.discarded = "";
  emptied(node);
  node.remove();
}

/** Whether an element was discarded, or one that it is in. */
export function isDiscarded(node) {
  return node.closest("[data-discarded]") !== null;
}

/** Give the memory of pictures back. */
export function emptied(node) {
  for (const canvas of node.querySelectorAll("canvas")) canvas.width = 0;
}

/** Tell a screen reader. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}
