import { type Failure, KpsError, failed } from "./errors";
import { Refusal, write } from "./values";

/** What core said, unless it is why nothing was done. @internal */
export function settled(told: string): string {
  if (!told.startsWith("{")) return told;
  throw failed((JSON.parse(told) as { error: Failure }).error);
}

/** Edits as core reads them. @internal */
export function written(name: string, value: unknown): { text: string; parts: Uint8Array[] | undefined } {
  if (typeof value !== "object" || value === null) throw new TypeError(`${name} must be an object or a list of them`);
  try {
    const { text, parts } = write(value, () => {
      throw new Refusal("functions do not go into documents", undefined);
    });
    whole(name, text, HALF_IN_JSON);
    return { text, parts };
  } catch (error) {
    throw error instanceof Refusal ? new KpsError("invalid_operation", error.message) : error;
  }
}

/** Half of a surrogate pair. */
const HALF = /\p{Surrogate}/u;
/** As JSON writes it: with an odd number of backslashes. @internal */
export const HALF_IN_JSON = /(?<!\\)(?:\\\\)*\\ud[89a-f]/;

/** Refuses text in which a character was cut in two: there is no UTF-8 for that. @internal */
export function whole(name: string, text: string, half = HALF): void {
  if (!half.test(text)) return;
  const sentence = `${name} has half of a surrogate pair: cut strings between code points, as [...text] does, not within them`;
  throw new KpsError("invalid_argument", sentence);
}
