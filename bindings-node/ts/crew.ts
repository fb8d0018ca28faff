import { join } from "node:path";
import { MessageChannel, type MessagePort, type ResourceLimits, Worker, receiveMessageOnPort } from "node:worker_threads";
import { debugs, failureOf } from "./failure";
import type { Place } from "./task-module";
import type { Written } from "./values";

/** What a run ends with. @internal */
export type Answer = Written | { failure: object };

/** What a worker starts with. @internal */
export interface Start {
  place: Place;
  /** Not the worker's own: modules may use that. */
  port: MessagePort;
  /** How many runs it has begun. */
  begun: Int32Array;
}

/** What a worker is given. @internal */
export interface Given extends Written {
  /** As `Date.now()` counts. */
  deadline: number;
}

/** What a worker tells. @internal */
export type News = { ready: true } | { unready: string } | { answer: Answer };

const FILE = join(__dirname, "task-worker.js");

/** Workers that still run what nobody waits for, beside those at work; with more of them the task is refused. */
const STRAYS = 64;

/** One run of a task. @internal */
export class Job {
  /** It was given to a worker that ended before it began. */
  isUnlucky = false;

  constructor(
    readonly written: Written,
    readonly deadline: number,
    readonly end: (answer: Answer) => void,
  ) {}

  /** It was not the task that failed. */
  fail(code: string, message: string, retry = false, more: object = {}): void {
    this.end({ failure: { ...more, code, message, retry } });
  }
}

/**
 * Worker threads that run one task: they start when they are needed, and stay. Who runs next is core's affair, as are
 * fairness and deadlines; here a job runs until it ends, or until nobody waits for it any more.
 * @internal
 */
export class Crew {
  private readonly members = new Set<Member>();
  private readonly idle: Member[] = [];
  private readonly waiting = new Set<Job>();
  /** Ended, but not yet gone. */
  private strays = 0;
  private closed = false;

  constructor(
    private readonly place: Place,
    private readonly size: number,
    private readonly limits: ResourceLimits,
  ) {}

  /** Starts the first worker; rejects with what kept it from being ready. */
  async start(): Promise<void> {
    const member = this.hire();
    await new Promise<void>((resolve, reject) => {
      member.told = (reason) => (reason === undefined ? resolve() : reject(new Error(reason)));
    });
    this.free(member);
  }

  run(job: Job): void {
    if (this.closed) return job.fail("unavailable", "the task was taken away", true);
    const member = this.idle.pop();
    if (member !== undefined) return member.begin(job);
    if (this.isOverrun()) {
      const message = `${this.strays} workers of this task still run for nobody: they are inside of code that cannot be interrupted`;
      return job.fail("unavailable", message, true);
    }
    this.waiting.add(job);
    this.fill();
  }

  /** Nobody waits for the job any more: whoever works at it is ended, and replaced at once. */
  leave(job: Job): void {
    if (this.waiting.delete(job)) return;
    for (const member of this.members) {
      if (member.job !== job) continue;
      member.job = undefined;
      // One that is not ready yet did not begin; who has little time would else end each before it is.
      if (!member.isReady) return this.free(member);
      this.dismiss(member);
      return this.replace();
    }
  }

  /** Ends all of it, whatever it does. */
  close(): void {
    this.closed = true;
    for (const member of this.members) this.dismiss(member);
    for (const job of this.waiting) job.fail("unavailable", "the task was taken away", true);
    this.waiting.clear();
  }

  /** @internal */
  free(member: Member): void {
    const [job] = this.waiting;
    if (job === undefined) {
      this.idle.push(member);
      return;
    }
    this.waiting.delete(job);
    member.begin(job);
  }

  /** A job that did not begin, through no fault of its own, waits once more; `false`: not again. @internal */
  again(job: Job): boolean {
    // Its parts were moved to the other worker, and are lost.
    if (job.isUnlucky || job.written.parts !== undefined) return false;
    job.isUnlucky = true;
    const others = [...this.waiting];
    this.waiting.clear();
    for (const each of [job, ...others]) this.waiting.add(each);
    return true;
  }

  /** A member ended by itself. @internal */
  lost(member: Member, wasAtWork: boolean): void {
    this.forget(member);
    // One that ends before it works does so again: the next is tried when it is needed.
    if (wasAtWork && member.isReady) this.replace();
    else this.fill();
  }

  private isOverrun(): boolean {
    return this.strays >= STRAYS + this.size;
  }

  private hire(): Member {
    const member = new Member(this, this.place, this.limits);
    this.members.add(member);
    return member;
  }

  private dismiss(member: Member): void {
    this.forget(member);
    this.strays++;
    void member.end().then(() => {
      this.strays--;
      this.fill();
    });
  }

  private forget(member: Member): void {
    this.members.delete(member);
    const at = this.idle.indexOf(member);
    if (at >= 0) this.idle.splice(at, 1);
  }

  private replace(): void {
    if (!this.closed && !this.isOverrun() && this.members.size < this.size) this.free(this.hire());
  }

  /** Has new workers take what waits. */
  private fill(): void {
    while (this.waiting.size > 0 && this.members.size < this.size && !this.isOverrun()) this.free(this.hire());
  }
}

/** One worker. */
class Member {
  job: Job | undefined;
  isReady = false;
  /** Told whether it is ready, or why not. */
  told: ((reason?: string) => void) | undefined;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly begun = new Int32Array(new SharedArrayBuffer(4));
  private given = 0;
  private unready = "it ended before it was ready";
  private thrown: unknown;
  private isGone = false;
  private dismissed = false;

  constructor(
    private readonly crew: Crew,
    place: Place,
    resourceLimits: ResourceLimits,
  ) {
    const { port1, port2: port } = new MessageChannel();
    const workerData: Start = { place, port, begun: this.begun };
    this.worker = new Worker(FILE, { workerData, transferList: [port], resourceLimits, name: "kps-task" } as object);
    this.worker.on("error", (error) => (this.thrown = error));
    this.worker.on("exit", (code) => this.exited(code));
    this.port = port1;
    this.port.on("message", (news: News) => this.hear(news));
    // What keeps the process alive is who waits for an answer.
    this.worker.unref();
    this.port.unref();
  }

  /** Does the job as soon as it is ready. */
  begin(job: Job): void {
    this.job = job;
    if (this.isReady) this.give(job);
  }

  private give({ written: { text, parts }, deadline }: Job): void {
    this.given++;
    const given: Given = { text, parts, deadline };
    this.port.postMessage(given, movable(parts));
  }

  /** Ends it, whatever it does. */
  async end(): Promise<void> {
    this.dismissed = true;
    this.port.close();
    await this.worker.terminate();
  }

  private hear(news: News): void {
    if (this.dismissed) return;
    if ("ready" in news) {
      this.isReady = true;
      this.told?.();
      if (this.job !== undefined) this.give(this.job);
    } else if ("unready" in news) {
      this.unready = news.unready;
      void this.worker.terminate();
    } else {
      const { job } = this;
      this.job = undefined;
      // Free first: who has the answer may ask again at once.
      if (!this.isGone) this.crew.free(this);
      job?.end(news.answer);
    }
  }

  private exited(code: number): void {
    if (this.dismissed) return;
    this.isGone = true;
    // What it said before.
    for (let last = receiveMessageOnPort(this.port); last !== undefined; last = receiveMessageOnPort(this.port)) {
      this.hear(last.message as News);
    }
    this.port.close();
    this.dismissed = true;
    const { job } = this;
    this.job = undefined;
    const hasBegun = Atomics.load(this.begun, 0) === this.given;
    const waits = job !== undefined && this.isReady && !hasBegun && this.crew.again(job);
    this.crew.lost(this, job !== undefined);
    if (!this.isReady) this.told?.(this.thrown === undefined ? this.unready : String(this.thrown));
    if (job === undefined || waits) return;
    if (hasBegun || !this.isReady) return this.failed(job, code);
    job.fail("unavailable", "the worker of the task ended before it began; another one takes its place", true);
  }

  private failed(job: Job, code: number): void {
    const next = "another one takes its place";
    if (!this.isReady && this.thrown === undefined) {
      return job.fail("internal", `the worker of the task was not ready: ${this.unready}`);
    }
    if (this.thrown === undefined) {
      return job.fail("internal", `the worker of the task ended with exit code ${code} while it ran it; ${next}`);
    }
    if ((Object(this.thrown) as { code?: unknown }).code === "ERR_WORKER_OUT_OF_MEMORY") {
      return job.fail("quota_exceeded", `the task needs more memory than its worker has; ${next}`);
    }
    const { message, type, traceback } = failureOf(this.thrown, debugs()) as { message: string; type: string; traceback?: string };
    job.fail("internal", `the worker of the task crashed while it ran it: ${message}; ${next}`, false, { type, traceback });
  }
}

/** The memory of parts that nobody else has. */
function movable(parts: Uint8Array[] | undefined): ArrayBuffer[] {
  const whole = parts?.filter(({ byteLength, buffer }) => byteLength > 0 && byteLength === buffer.byteLength);
  return whole?.map(({ buffer }) => buffer as ArrayBuffer) ?? [];
}
