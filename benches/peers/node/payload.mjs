// What every message carries: 128 bytes as compact JSON; `n` keeps its seven digits and shows losses and reordering.
export const FIRST = 1_000_000;
export const PAYLOAD = {
  n: FIRST,
  sensor: "house-17",
  zone: "bed-3",
  at: 1763690000,
  celsius: 21.375,
  humidity: 0.625,
  battery: 98,
  tags: ["a", "b"],
};
