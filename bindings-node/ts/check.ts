/** Checks of arguments: a wrong type is a `TypeError` that names the argument, a wrong value `invalid_argument`. */

import { KpsError } from "./errors";

function refuse(name: string, wanted: string, value: unknown): never {
  const got = value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
  throw new TypeError(`${name} must be ${wanted}, not ${got}`);
}

/** @internal */
export function string(name: string, value: unknown): asserts value is string {
  if (typeof value !== "string") refuse(name, "a string", value);
}

/** @internal */
export function fn(name: string, value: unknown): void {
  if (typeof value !== "function") refuse(name, "a function", value);
}

/** @internal */
export function number(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || Number.isNaN(value)) refuse(name, "a number", value);
}

/** A whole number from `least` on. @internal */
export function whole(name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least && value < 2 ** 32) return;
  throw new KpsError("invalid_argument", `${name} is ${value}; it is a whole number from ${least}`);
}

/** @internal */
export type Shape = Record<string, "string" | "number" | "duration" | "boolean" | "function" | "strings" | "object" | "place" | "words" | "storage">;

/**
 * Checks the options in `value` against `shape`; `null` and `undefined` mean "not given".
 * @internal
 */
export function options(value: unknown, shape: Shape): void {
  if (typeof value !== "object" || value === null) refuse("options", "an object", value);
  for (const [name, given] of Object.entries(value)) {
    const wanted = shape[name];
    if (wanted === undefined) throw new TypeError(`${name} is not an option; there are ${Object.keys(shape).join(", ")}`);
    if (given === undefined || given === null) continue;
    if (wanted === "strings") {
      if (!Array.isArray(given) || given.some((one) => typeof one !== "string")) refuse(name, "an array of strings", given);
    } else if (wanted === "place") {
      const place = given instanceof Date ? given.getTime() : given;
      if (typeof place !== "string" && (typeof place !== "number" || Number.isNaN(place))) {
        refuse(name, "a string, a number or a valid Date", given);
      }
    } else if (wanted === "words") {
      if (typeof given !== "boolean" && typeof given !== "string") refuse(name, "a boolean or a string", given);
    } else if (wanted === "duration") {
      number(name, given);
      if (given < 0) throw new KpsError("invalid_argument", `${name} is ${given} ms; it is 0 or more`);
    } else if (wanted === "storage") {
      if (typeof given !== "string" && typeof given !== "object") refuse(name, "a path or an object", given);
    } else if (typeof given !== wanted || Number.isNaN(given)) {
      refuse(name, wanted === "object" ? "an object" : `a ${wanted}`, given);
    }
  }
}

/** Milliseconds of ten years: JSON has no word for longer. */
const FOREVER = 10 * 365 * 24 * 3600 * 1000;

/** The options that are given, for JSON. @internal */
export function given<T extends object>(options: T): T {
  const all = Object.entries(options).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(all.map(([name, value]) => [name, value === Infinity ? FOREVER : value])) as T;
}
