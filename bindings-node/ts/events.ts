import { KpsError } from "./errors";

/** Handlers by the name of the event. @internal */
export class Events {
  private readonly handlers = new Map<string, Set<(...args: never[]) => unknown>>();

  /** `shadowed`: names under which a server tells something else than its own client. */
  constructor(
    private readonly names: readonly string[],
    private readonly shadowed: readonly string[] = [],
  ) {}

  /** Adds a handler; the returned function removes it. */
  on(event: string, handler: (...args: never[]) => unknown): () => void {
    if (!this.names.includes(event)) {
      throw new KpsError("invalid_argument", `event is "${event}"; it is one of ${this.names.join(", ")}`);
    }
    let handlers = this.handlers.get(event);
    if (handlers === undefined) this.handlers.set(event, (handlers = new Set()));
    handlers.add(handler);
    return () => void handlers.delete(handler);
  }

  has(event: string): boolean {
    return (this.handlers.get(event)?.size ?? 0) > 0;
  }

  all(event: string): Iterable<(...args: never[]) => unknown> {
    return this.handlers.get(event) ?? [];
  }

  /** `emit` of what a client does itself. */
  tell(event: string, ...args: unknown[]): void {
    if (!this.shadowed.includes(event)) this.emit(event, ...args);
  }

  /** Calls every handler; what one throws is an uncaught exception, and the others are called all the same. */
  emit(event: string, ...args: unknown[]): void {
    for (const handler of this.all(event)) {
      try {
        handler(...(args as never[]));
      } catch (error) {
        process.nextTick(() => {
          throw error;
        });
      }
    }
  }
}
