import { KpsError } from "./errors";
import { debugs, failureOf } from "./failure";
import type { RegisterOptions } from "./types";

/** What a capability's method may want to know of a call. */
export interface CallContext {
  /** The call's id, the same over all its attempts. */
  readonly id: string;
  readonly operation: string;
  /** The client that calls; `null`: this process itself. */
  readonly caller: string | null;
  /** 1, 2, 3, … */
  readonly attempt: number;
  /** Until when an answer is awaited, as `Date.now()` counts; `Infinity`: for ever. */
  readonly deadline: number;
  /** Aborted when nobody waits for the answer any more: at the deadline, or at a cancellation. */
  readonly signal: AbortSignal;
  /** Tells the caller how far it is, if it wants to know. */
  progress(value: unknown): void;
}

/** A call under way. @internal */
export class Context implements CallContext {
  readonly deadline: number;
  private controller: AbortController | undefined;
  private reason: KpsError | undefined;

  constructor(
    readonly id: string,
    readonly operation: string,
    readonly caller: string | null,
    readonly attempt: number,
    left: number,
    private readonly tell: ((value: unknown) => void) | undefined,
  ) {
    this.deadline = Date.now() + left;
  }

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      // Made for those who look at it: it takes longer than all the rest.
      this.controller = new AbortController();
      if (this.reason !== undefined) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }

  progress(value: unknown): void {
    this.tell?.(value);
  }

  /** @internal */
  abort(late: boolean): void {
    this.reason = late
      ? new KpsError("timeout", "the call's deadline came: nobody waits for its answer any more")
      : new KpsError("cancelled", "nobody waits for the call's answer any more");
    this.controller?.abort(this.reason);
  }
}

type Method = (payload: unknown, context: CallContext) => unknown;

/** One of a capability's operations, as core is told. */
interface Operation {
  name: string;
  summary: string;
  schema: unknown;
}

/** Whom core may call. @internal */
export interface Offered {
  call(operation: string, payload: unknown, context: CallContext): unknown;
  hook(name: string): unknown;
  /** What core is told of what a call threw. */
  failure(error: unknown): object;
}

/** An object whose methods are operations. @internal */
export class Provider implements Offered {
  readonly operations: Operation[];
  readonly debug: boolean;
  private readonly target: Record<string, unknown>;

  constructor(capability: unknown, options: RegisterOptions) {
    this.target = instance(capability) as Record<string, unknown>;
    this.operations = operations(this.target);
    this.debug = options.debug ?? debugs();
  }

  has(name: string): boolean {
    return typeof this.target[name] === "function";
  }

  call(operation: string, payload: unknown, context: CallContext): unknown {
    return (this.target[operation] as Method)(payload, context);
  }

  hook(name: string): unknown {
    return (this.target[name] as () => unknown)();
  }

  failure(error: unknown): object {
    return failureOf(error, this.debug);
  }
}

function instance(capability: unknown): object {
  if (typeof capability === "function" && capability.prototype !== undefined) {
    return new (capability as new () => object)();
  }
  if (typeof capability !== "object" || capability === null) {
    const got = capability === null ? "null" : typeof capability;
    throw new TypeError(`capability must be an object or a class with methods, not ${got}`);
  }
  return capability;
}

const HOOKS = new Set(["constructor", "init", "close"]);

function operations(target: object): Operation[] {
  const own = target as { operations?: unknown; schemas?: unknown; constructor?: { operations?: unknown; schemas?: unknown } };
  const schemas = described(own.operations) ?? described(own.schemas) ?? described(own.constructor?.operations) ?? described(own.constructor?.schemas) ?? {};
  const names = new Set<string>();
  for (let owner: object | null = target; owner !== null && !isRoot(owner); owner = Object.getPrototypeOf(owner) as object | null) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(owner))) {
      if (typeof value === "function" && !name.startsWith("_") && !HOOKS.has(name)) names.add(name);
    }
  }
  if (names.size === 0) throw new TypeError("capability must have methods: they are its operations");
  for (const name of Object.keys(schemas)) {
    if (!names.has(name)) throw new TypeError(`the capability describes ${name}, which is no method of it`);
  }
  return [...names].map((name) => {
    const schema = schemas[name] ?? null;
    const { description } = Object(schema) as { description?: unknown };
    return { name, summary: typeof description === "string" ? description : "", schema };
  });
}

function described(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
}

/** `Object.prototype`, of whatever realm. */
function isRoot(owner: object): boolean {
  return Object.getPrototypeOf(owner) === null && Object.hasOwn(owner, "hasOwnProperty");
}
