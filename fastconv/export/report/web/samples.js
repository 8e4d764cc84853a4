// What is known of the samples: name, label, prediction, whole picture.

import { arrays, picture, plain, PER_CHUNK } from "./data.js";

/** A function from the number of a sample to what is known of it. */
export async function sampleLookup(run) {
  const { table, keys, pictures } = run.samples;
  const [known, names] = await Promise.all([arrays(table), keys === null ? null : plain(keys)]);
  return (sample) => {
    const row = find(known.sample, sample);
    if (row < 0) return { sample, name: null, label: undefined };
    const at = (name) => (known[name] ? known[name][row] : undefined);
    return {
      sample,
      name: names && names[row],
      label: at("label"),
      prediction: at("prediction"),
      confidence: at("confidence"),
      correct: at("correct"),
      hasPicture: known.picture[row] >= 0,
      picture: () => picture(pictures[Math.floor(known.picture[row] / PER_CHUNK)], known.picture[row] % PER_CHUNK),
    };
  };
}

/** The name of a class. */
export function className(run, label) {
  if (label === undefined || label < 0) return null;
  if (run.samples.sets) return run.samples.sets[label]; // of a multi-label model: its classes
  return classTitle(run.classes[label]?.name ?? String(label));
}

/** A class by its name, where it has no more than a number. */
export function classTitle(name) {
  return /^\d+$/.test(name) ? `class ${name}` : name;
}

/** The place of a value in an ascending array, or -1. */
function find(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] === value) return middle;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
