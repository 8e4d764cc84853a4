// Every view has an address after the #, so that it can be kept, sent and gone back to.

/** The address: #/filter/conv1/12?run=1. */
export function href(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  const search = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined),
  );
  return `#/${path}${search.size ? `?${search}` : ""}`;
}

/** What an address says: {parts, query}. */
export function parse(hash) {
  const [path, search] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(search ?? "")) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Go there; `replace` leaves no step to go back to. */
export function go(address, { replace = false } = {}) {
  if (!replace) location.hash = address;
  else history.replaceState(history.state, "", address);
}
