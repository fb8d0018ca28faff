/** What a worker thread of a task runs. */
import { workerData } from "node:worker_threads";
import type { Answer, Given, News, Start } from "./crew";
import { debugs, failureOf, unspeakable } from "./failure";
import { load } from "./task-module";
import type { TaskContext, TaskFunction } from "./types";
import { Refusal, revive, write } from "./values";

const { place, port, begun } = workerData as Start;
const debug = debugs();

/** One run of the task. */
class Run implements TaskContext {
  private controller: AbortController | undefined;

  constructor(readonly deadline: number) {}

  get signal(): AbortSignal {
    // Made for those who look at it. The worker ends before it could be aborted.
    this.controller ??= new AbortController();
    return this.controller.signal;
  }
}

function tell(news: News, transfer: ArrayBuffer[] = []): void {
  port.postMessage(news, transfer);
}

async function run(task: TaskFunction, { text, parts, deadline }: Given): Promise<void> {
  Atomics.add(begun, 0, 1);
  let answer: Answer;
  try {
    answer = answered(await task(read(text, parts), new Run(deadline)));
  } catch (error) {
    answer = { failure: error instanceof Refusal ? unspeakable(error) : failureOf(error, debug) };
  }
  tell({ answer }, "failure" in answer ? [] : answer.parts?.map(({ buffer }) => buffer as ArrayBuffer));
}

function read(text: string, parts: Uint8Array[] | undefined): unknown {
  const value: unknown = JSON.parse(text);
  if (parts === undefined) return value;
  const part = (index: number) => {
    const { buffer, byteOffset, byteLength } = parts[index]!;
    return Buffer.from(buffer, byteOffset, byteLength);
  };
  return revive(value, { part, fn: () => undefined });
}

/** Its bytes are copied once: the task may keep its own. */
function answered(value: unknown): Answer {
  const { text, parts } = write(value, stays);
  return { text, parts: parts?.map((part) => part.slice()) };
}

function stays(): never {
  throw new TypeError("a function stays in its worker");
}

load(place).then(
  (task) => {
    port.on("message", (given: Given) => void run(task, given));
    tell({ ready: true });
  },
  (error: unknown) => tell({ unready: String(error) }),
);
