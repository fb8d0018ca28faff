import type { TaskFunction } from "./types";

/** Where a task's function stands. @internal */
export interface Place {
  /** Its module, a `file:` URL. */
  href: string;
  /** What the module exports it as. */
  name: string;
}

/** The function. @internal */
export async function load({ href, name }: Place): Promise<TaskFunction> {
  const found = (await import(href)) as Record<string, unknown>;
  // Node does not see all that a CommonJS module exports.
  const fn = found[name] ?? (Object(found["default"]) as Record<string, unknown>)[name];
  if (typeof fn === "function") return fn as TaskFunction;
  const exported = Object.keys(found).join(", ");
  throw new Error(`${href} exports no function ${name}${exported === "" ? "" : `; it exports ${exported}`}`);
}
