// Colours that colour-blind readers can tell apart (Okabe and Ito), in both themes.

const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b0579b", "#a67c00", "#2f8fc4", "#5b5b5b", "#8b3a1a"];
const DARK = ["#56b4e9", "#f08a3c", "#2fc89b", "#dd93bd", "#e0bd4a", "#8fb8ff", "#bdbdbd", "#d9967a"];
const DASHES = [[], [7, 3], [2, 3]];

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Colour and dash of the i-th run. */
export function line(i) {
  const palette = isDark() ? DARK : LIGHT;
  return { colour: palette[i % palette.length], dash: DASHES[Math.floor(i / palette.length) % DASHES.length] };
}

const ENDS = {
  light: { high: [0, 104, 170], low: [213, 94, 0], only: [0, 128, 112], on: [170, 60, 140] },
  dark: { high: [86, 180, 233], low: [240, 138, 60], only: [64, 200, 170], on: [221, 147, 189] },
};

/** A hue whose strength is the value: text on it stays legible, and zero is the page itself. */
function tint(end, strength) {
  const [r, g, b] = ENDS[isDark() ? "dark" : "light"][end];
  return `rgba(${r}, ${g}, ${b}, ${(0.72 * Math.min(1, Math.max(0, strength))).toFixed(3)})`;
}

/** From one end of a diverging scale (0) to the other (1), opaque: ages, from the newest to the oldest. */
export function between(part) {
  const { high, low } = ENDS[isDark() ? "dark" : "light"];
  return `rgb(${high.map((value, i) => Math.round(value + (low[i] - value) * part)).join(",")})`;
}

/** Where a scale has no colour: the centre, certainty (the upper end of log-probabilities), or nothing. */
export const base = (scale) => (scale.kind === "diverging" ? scale.center : scale.low < 0 ? scale.high : scale.low);

/** The colour of a value on a scale {kind: "diverging" | "sequential" | "binary", low, high, center}. */
export function colour(value, scale) {
  if (value === null || value === undefined) return "";
  if (scale.kind === "binary") return value ? tint("on", 0.75) : "";
  const from = base(scale);
  const strength = Math.abs(value - from) / (Math.max(scale.high - from, from - scale.low) || 1);
  if (scale.kind === "diverging") return tint(value >= from ? "high" : "low", strength);
  return tint("only", strength);
}
