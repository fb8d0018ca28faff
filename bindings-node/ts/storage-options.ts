import * as check from "./check";
import type { StorageOptions } from "./types";

const STORAGE = {
  path: "string",
  compress: "boolean",
  versions: "number",
  quota: "number",
  durability: "string",
  maxKey: "number",
  maxValue: "number",
  maxInline: "number",
  maxLocalSize: "number",
} as const;

/**
 * A storage's options as core reads them: a path or an object, in which a key of bytes is marked as such.
 * @internal
 */
export function storageOptions(given: string | StorageOptions | null | undefined): unknown {
  if (typeof given !== "object" || given === null) return given ?? undefined;
  const { key, ...rest } = given;
  check.options(rest, STORAGE);
  if (key === undefined || key === null) return rest;
  if (typeof key === "string") return { ...rest, key };
  if (!(key instanceof Uint8Array)) throw new TypeError(`key must be a Uint8Array of 32 bytes or a string, not ${typeof key}`);
  return { ...rest, key: { $bytes: Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("base64") } };
}
