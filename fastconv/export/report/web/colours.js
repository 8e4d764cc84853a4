// Colour maps: perceptually uniform ones for values, a diverging one centred at zero for weights.

const VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725";
const DIVERGING = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f";

export const viridis = table(VIRIDIS);
export const diverging = table(DIVERGING);

/** 256 colours [256 * 3] between these stops. */
function table(stops) {
  const colours = stops.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const found = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (colours.length - 1);
    const below = Math.min(Math.floor(at), colours.length - 2);
    for (let c = 0; c < 3; c++) {
      found[3 * i + c] = colours[below][c] + (at - below) * (colours[below + 1][c] - colours[below][c]);
    }
  }
  return found;
}

// twenty colours for classes, told apart by people who see colours differently as well as can be
const CLASSES =
  "4477aa ee6677 228833 ccbb44 66ccee aa3377 bb7733 44bb99 8866cc 99aa33 dd88aa 3355cc cc5533 77aadd 997755 55aa55 cc77cc 888888 dd9944 5599aa";

export function classColour(number) {
  const colours = CLASSES.split(" ");
  return number === undefined || number < 0 ? "#888888" : `#${colours[number % colours.length]}`;
}
