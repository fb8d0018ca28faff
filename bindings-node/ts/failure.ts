import type { KpsError } from "./errors";
import type { Refusal } from "./values";

/** What core is told of what the program threw. @internal */
export function failureOf(error: unknown, debug: boolean): object {
  const { message, stack } = Object(error) as Error;
  const failure = { message: String(message ?? error), type: typeName(error), traceback: debug && stack ? String(stack) : undefined };
  if (isNamed(error, "Retry")) return { ...failure, code: "unavailable", retry: true };
  const { code, retry, field } = Object(error) as KpsError;
  if (!isNamed(error, "KpsError") || typeof code !== "string") return { ...failure, code: "internal", retry: false };
  return { ...failure, code, retry: retry === true, field };
}

/** What core is told of an answer that cannot be written. @internal */
export function unspeakable(error: Refusal): object {
  return { code: "internal", message: `what the operation returned cannot travel: ${error.message}`, retry: false };
}

/** Whether failures carry the stack, unless somebody says. @internal */
export function debugs(): boolean {
  const debug = process.env["KPS_DEBUG"];
  return debug !== undefined && debug !== "0";
}

/** Not by its class: a task in a worker has another copy of it. */
function isNamed(error: unknown, name: string): boolean {
  return (Object(error) as Error).name === name;
}

function typeName(error: unknown): string {
  if (error instanceof Error) return error.name;
  const { name } = Object(error) as { name?: unknown };
  return typeof name === "string" ? name : typeof error;
}
