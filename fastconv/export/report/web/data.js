// The index of the page, and its chunks, which are decoded when they are asked for.

export const index = JSON.parse(document.getElementById("index").textContent);

export const PER_CHUNK = 64;
const KEPT_BYTES = 24e6;
const TYPES = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
};

const kept = new Map(); // number of a chunk -> promise of its bytes, the last used at the end
let keptBytes = 0;

/** The arrays of a chunk, by name, each with its `shape`. */
export async function arrays(reference) {
  const bytes = await chunk(reference.chunk, true);
  const found = {};
  for (const [name, [dtype, shape, offset]] of Object.entries(reference.arrays)) {
    const length = shape.reduce((a, b) => a * b, 1);
    found[name] = new TYPES[dtype](bytes.buffer, bytes.byteOffset + offset, length);
    found[name].shape = shape;
  }
  return found;
}

/** Plain data. */
export async function plain(number) {
  return JSON.parse(new TextDecoder().decode(await chunk(number, true)));
}

/** One picture of a chunk of pictures, decoded. */
export async function picture(number, which) {
  const bytes = await chunk(number, false);
  const offsets = new DataView(bytes.buffer, bytes.byteOffset);
  const [start, end] = [offsets.getUint32(4 * which, true), offsets.getUint32(4 * which + 4, true)];
  return createImageBitmap(new Blob([bytes.subarray(start, end)], { type: "image/webp" }));
}

/** The column of a table by name: values, format and, of text, its distinct values. */
export function column(layer, table, name) {
  const about = index.columns[name];
  return { values: table[name], texts: layer.table.texts[name], ...about };
}

function chunk(number, deflated) {
  let found = kept.get(number);
  kept.delete(number);
  found ??= decode(number, deflated);
  kept.set(number, found);
  return found;
}

async function decode(number, deflated) {
  let bytes = fromBase64((await arrived(`chunk-${number}`)).textContent);
  if (deflated) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  keptBytes += bytes.length;
  for (const [oldest, promise] of kept) {
    if (keptBytes <= KEPT_BYTES || oldest === number) break;
    kept.delete(oldest);
    promise.then((dropped) => (keptBytes -= dropped.length));
  }
  return bytes;
}

/** An element of the page once the parser is done with it: the page shows before all has arrived. */
async function arrived(id) {
  for (;;) {
    const node = document.getElementById(id);
    if (node && (node.nextSibling || document.readyState !== "loading")) return node;
    if (document.readyState !== "loading") throw new Error(`the page is cut off: ${id} is missing`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
