/** Checks of argument types: a wrong one is a `TypeError` that names the argument. */

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

/** @internal */
export type Shape = Record<string, "string" | "number" | "boolean" | "function" | "strings" | "object" | "place" | "words">;

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
    } else if (typeof given !== wanted || Number.isNaN(given)) {
      refuse(name, wanted === "object" ? "an object" : `a ${wanted}`, given);
    }
  }
}
