// Numbers and names as people read them.

const COUNT = new Intl.NumberFormat("en");

export function count(value) {
  return COUNT.format(value);
}

/** "1 filter", "12 filters". */
export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;
}

/** A number with three significant digits; a dash where there is none. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e5 || size < 1e-3) text = value.toExponential(1).replace("e+", "e");
  else text = String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}

/** A false discovery rate; the page keeps single precision. */
export function chance(rate) {
  return rate === 0 ? "< 1e−37" : number(rate);
}

export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  const value = 100 * share;
  const digits = Math.abs(value) > 0 && Math.abs(value) < 10 ? 1 : 0;
  return `${value.toFixed(digits).replace("-", "−")} %`;
}

/** A value of a column. */
export function formatted(value, form, texts) {
  if (texts) return texts[value] || "–";
  if (form === "percent") return percent(value);
  if (form === "flag") return Number.isNaN(value) ? "–" : value > 0 ? "yes" : "no";
  if (["integer", "filter", "other"].includes(form)) return Number.isNaN(value) ? "–" : count(value);
  return number(value);
}

/** "3 × 3". */
export function times(sizes) {
  return sizes && sizes.length ? sizes.join(" × ") : "–";
}
