import type * as generated from "../native";

/**
 * The functions that run once per message or call; `src/hot.rs` and `src/calls/hot.rs` have them.
 * @internal
 */
export interface Hot {
  /** The number to publish under to `name`; `again` = 1 forgets all names before it. */
  name(name: string, again: 0 | 1): number;
  /** Returns the publish number, negative above the soft bound. `timeout` NaN: no ack. */
  publish(
    client: number,
    mode: number,
    name: number,
    payload: string | Uint8Array,
    timeout?: number,
    options?: string,
  ): number;
  answer(client: number, delivery: number, kind: number, payload?: string | Uint8Array, text?: string, delay?: number): void;
  consumed(client: number, sub: number, count: number): void;
  flush(client: number): void;
  drain(slab: Buffer, head: number, tail: number, how: number, news: unknown[]): number;
  /**
   * The response, as text or as text and its parts, if it is there at once; else 0, or 1 if there is something to look
   * for, as with all that follow.
   */
  dispatch(
    client: number,
    token: number,
    action: string,
    payload: string,
    timeout: number,
    parts?: Uint8Array[],
    options?: string,
  ): string | [string, ...Buffer[]] | number;
  cancel(token: number): number;
  /** `ok` 0: `value` is a failure. */
  answered(call: number, ok: 0 | 1, value: string, parts?: Uint8Array[]): number;
  progress(call: number, value: string, parts?: Uint8Array[]): number;
  callFunction(number: number, value: string, parts?: Uint8Array[]): number;
  dropFunction(number: number): number;
}

/** @internal */
export type Native = typeof generated;

/** @internal */
export type Bridge = generated.Bridge;

/** The platform's part of the binary's name, as `napi build --platform` writes it. */
function candidates(): string[] {
  const { platform, arch } = process;
  if (platform === "linux") return [`linux-${arch}-gnu`, `linux-${arch}-musl`];
  if (platform === "win32") return [`win32-${arch}-msvc`];
  return [`${platform}-${arch}`];
}

function load(): Native {
  const reasons: string[] = [];
  for (const name of candidates()) {
    for (const path of [`../kps.${name}.node`, `kps-${name}`]) {
      try {
        return require(path) as Native;
      } catch (error) {
        reasons.push(String((error as Error).message).split("\n")[0]!);
      }
    }
  }
  throw new Error(`kps has no native module for this platform; run \`npm run build\`.\n${reasons.join("\n")}`);
}

/** @internal */
export const native: Native = load();
