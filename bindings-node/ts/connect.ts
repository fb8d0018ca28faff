import * as check from "./check";
import { Client } from "./client";
import { environment } from "./environment";
import { native } from "./errors";
import { storageOptions } from "./storage-options";
import type { ConnectOptions } from "./types";

const URL = "ws://127.0.0.1:9313";

const CONNECT = {
  id: "string",
  token: "string",
  namespace: "string",
  timeout: "duration",
  wait: "boolean",
  reconnect: "boolean",
  reconnectMin: "duration",
  reconnectMax: "duration",
  outbox: "string",
  outboxSoft: "number",
  outboxHard: "number",
  outboxOverflow: "string",
  storage: "storage",
  ca: "string",
  bigints: "boolean",
} as const;

/**
 * Connects to a server: `ws://`, `wss://` or `mem://`. Rejects if no handshake completes within
 * `timeout`; with `wait: false` it starts offline.
 */
export async function connect(url: string = URL, options: ConnectOptions = {}): Promise<Client> {
  check.string("url", url);
  check.options(options, CONNECT);
  const { bigints = false, storage, ...rest } = check.given(options);
  const json = JSON.stringify({ url, ...rest, storage: storageOptions(storage) });
  const key = native(() => environment.bridge.connect(json));
  const client = new Client(key, url, bigints);
  if (options.wait !== false) await client._ready();
  return client;
}
