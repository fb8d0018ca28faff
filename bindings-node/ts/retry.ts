/** How a handler says when it wants a message again. */

import { KpsError } from "./errors";

const LONGEST = 86_400_000;

/**
 * Thrown by a durable's handler: the message fails and comes again after `delay` milliseconds. Without `delay` it comes as
 * after any other error: after `retryDelay`, doubled with each failure. At most a day.
 */
export class Retry extends Error {
  override readonly name = "Retry";
  readonly delay: number | null;

  constructor(options: { delay?: number | null; message?: string } = {}) {
    super(options.message ?? "to be handled again");
    this.delay = retryDelay(options.delay ?? null);
  }
}

/** `delay`, if it is one. */
export function retryDelay(delay: number | null): number | null {
  if (delay === null || (delay >= 0 && delay <= LONGEST)) return delay;
  throw new KpsError("invalid_argument", `delay is ${delay}; it must be between 0 and ${LONGEST} milliseconds`);
}
