/** How values become JSON and back: plainly, or with exact integers. @internal */
export interface Json {
  encode(value: unknown): string | undefined;
  decode(text: string): unknown;
}

/** @internal */
export const plain: Json = { encode: JSON.stringify, decode: JSON.parse };

/**
 * With `{ bigints: true }`: a bigint is written as its digits, and an integer beyond 2^53 read as
 * a bigint. Marks such integers as strings that nobody can guess, because `JSON` in Node 20 shows
 * neither side the digits.
 * @internal
 */
export function bigints(): Json {
  // Only here, because loading it takes longer than all of kps.
  const { randomBytes } = require("node:crypto") as typeof import("node:crypto");
  const mark = `${randomBytes(12).toString("hex")}:`;
  const marked = new RegExp(`"${mark}(-?\\d+)"`, "g");
  // Either a whole string, which is skipped, or an integer of 16 and more digits.
  const token = /"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g;
  const write = (_: string, value: unknown) => (typeof value === "bigint" ? mark + value : value);
  const read = (_: string, value: unknown) => {
    if (typeof value !== "string" || !value.startsWith(mark)) return value;
    const exact = BigInt(value.slice(mark.length));
    const near = Number(exact);
    return Number.isSafeInteger(near) ? near : exact;
  };
  // The end of a number's fraction looks like an integer too.
  const inFraction = (text: string, at: number) => /[\d.eE+]/.test(text[at - 1] ?? "") || /[eE]-?$/.test(text.slice(at - 2, at));
  return {
    encode: (value) => JSON.stringify(value, write)?.replace(marked, "$1"),
    decode(text) {
      let found = false;
      const prepared = text.replace(token, (part, at: number) => {
        if (part[0] === '"' || inFraction(text, at)) return part;
        found = true;
        return `"${mark}${part}"`;
      });
      return found ? JSON.parse(prepared, read) : JSON.parse(text);
    },
  };
}
