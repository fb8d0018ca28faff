// What every process of a benchmark needs: lines to the runner and from it, CPU, medians.
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Waits for the runner's next line. */
export const told = () => lines.next();

/** CPU that all threads of this process have used. */
export function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

export function say(event, values = {}) {
  const at = Number(process.hrtime.bigint()) / 1e9;
  process.stdout.write(JSON.stringify({ event, at, cpu: cpuSeconds(), ...values }) + "\n");
}

export const sorted = (took) => took.sort((a, b) => a - b);

/** The median of what is in order. */
export const middle = (ordered) => ordered[Math.floor(ordered.length / 2)];
