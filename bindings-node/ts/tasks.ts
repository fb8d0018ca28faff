import * as os from "node:os";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { CallContext, Offered } from "./capability";
import * as check from "./check";
import { Crew } from "./crew";
import { KpsError } from "./errors";
import { debugs, failureOf } from "./failure";
import { type Place, load } from "./task-module";
import type { TaskFunction, TaskModule, TaskOptions } from "./types";

/** How many of a task's promises may be pending at once on this thread. */
const BESIDE = 256;
/** Bytes that a worker needs to start. */
const LEAST_MEMORY = 16 << 20;

const TASK = { isolated: "boolean", concurrency: "number", shared: "boolean", memoryLimit: "number", summary: "string" } as const;

/** A task that core may call, and how many runs of it there is room for. @internal */
export interface Prepared {
  task: Offered | Crew;
  concurrency: number;
}

/** Makes a task of the function. One that no worker can have is refused. @internal */
export async function prepare(fn: TaskFunction | TaskModule, options: TaskOptions): Promise<Prepared> {
  check.options(options, TASK);
  const isolated = options.isolated ?? false;
  const concurrency = options.concurrency ?? (isolated ? cores() : BESIDE);
  check.whole("concurrency", concurrency, 1);
  const limits = limited(options.memoryLimit ?? undefined, isolated);
  if (typeof fn !== "function") return place(fn, isolated, concurrency, limits);
  if (!isolated) return { task: new Beside(fn), concurrency };
  throw new KpsError(
    "invalid_argument",
    "an isolated task is named by its module, { module: new URL(\"./tasks.mjs\", import.meta.url), export: \"name\" }: a function cannot go into a worker",
  );
}

async function place(fn: TaskModule, isolated: boolean, concurrency: number, limits: object): Promise<Prepared> {
  const where = located(fn);
  try {
    if (!isolated) return { task: new Beside(await load(where)), concurrency };
    const crew = new Crew(where, concurrency, limits);
    // The first worker tells whether it finds the function; the others start when they are needed.
    await crew.start();
    return { task: crew, concurrency };
  } catch (error) {
    throw new KpsError("invalid_argument", `the task cannot be loaded: ${(error as Error)?.message ?? String(error)}`);
  }
}

function located(fn: TaskModule): Place {
  if (typeof fn !== "object" || fn === null) {
    throw new TypeError(`fn must be a function, or an object { module, export }, not ${fn === null ? "null" : typeof fn}`);
  }
  const { module, export: name = "default" } = fn;
  check.string("export", name);
  const text = typeof module === "object" && module !== null ? module.href : module;
  check.string("module", text);
  const href = /^[a-z][a-z0-9+.-]+:/i.test(text) ? text : pathToFileURL(resolve(text)).href;
  if (href.startsWith("file:")) return { href, name };
  throw new KpsError("invalid_argument", `module is ${text.slice(0, 40)}; it is a path, or a file: URL`);
}

function limited(memory: number | undefined, isolated: boolean): { maxOldGenerationSizeMb?: number } {
  if (memory === undefined) return {};
  if (!isolated) throw new KpsError("invalid_argument", "memoryLimit is for isolated tasks: others share the memory of this thread");
  check.whole("memoryLimit", memory, LEAST_MEMORY);
  return { maxOldGenerationSizeMb: Math.floor(memory / 2 ** 20) };
}

function cores(): number {
  return os.availableParallelism?.() ?? os.cpus().length;
}

/** A function on this thread. */
class Beside implements Offered {
  private readonly debug = debugs();

  constructor(private readonly fn: TaskFunction) {}

  call(_: string, data: unknown, context: CallContext): unknown {
    return this.fn(data, context);
  }

  hook(): void {}

  failure(error: unknown): object {
    return failureOf(error, this.debug);
  }
}
