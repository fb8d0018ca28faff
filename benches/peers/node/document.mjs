// What the storage benchmarks save: 1,024 bytes as compact JSON for numbers of up to seven digits; ../python/document.py.
import { PAYLOAD } from "./payload.mjs";

export function document(number) {
  return {
    id: 1_000_000 + number,
    name: "Ada Lovelace",
    mail: "ada@example.org",
    verified: true,
    note: "n".repeat(281),
    orders: Array.from({ length: 5 }, (_, order) => ({ ...PAYLOAD, n: PAYLOAD.n + order })),
  };
}
