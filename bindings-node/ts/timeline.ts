import type { TimelineEntry } from "./types";

/** What core tells of the past, each with how long ago it was, on the clock of this program. @internal */
export function timeline(json: string): TimelineEntry[] {
  const now = Date.now();
  const told = JSON.parse(json) as { ago: number; event: string; detail: string }[];
  return told.map(({ ago, event, detail }) => ({ time: now - ago, event, detail }));
}
