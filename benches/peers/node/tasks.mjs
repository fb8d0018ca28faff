// The tasks of the compute benchmarks as a program writes them in JavaScript; worker threads load this module.
import { checkPrimeSync, createHash } from "node:crypto";

// The largest prime below 2⁵¹².
export const PRIME = 2n ** 512n - 569n;
export const ITEMS = 100;

/** What each of 100 tasks is given. */
export const GIVEN = {
  fibonacci: 20,
  is_prime: PRIME,
  hash_sha256: new Uint8Array(256 * 1024).map((_, at) => at),
  add: { a: 1, b: 2 },
  spin: { turns: 200_000 },
};

export function fibonacci(n) {
  let [a, b] = [0, 1];
  for (let turn = 0; turn < n; turn++) [a, b] = [b, a + b];
  return a;
}

/** OpenSSL's test, with as many rounds as it finds right. */
export function is_prime(n) {
  return checkPrimeSync(n);
}

export function hash_sha256(data) {
  return createHash("sha256").update(data).digest("hex");
}

export function add({ a, b }) {
  return a + b;
}

/** Some 5 ms of work. */
export function spin({ turns }) {
  let total = 0;
  for (let turn = 0; turn < turns; turn++) total += (turn * turn) % 7;
  return total;
}
