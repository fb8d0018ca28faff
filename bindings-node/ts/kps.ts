/** What KPS programs know: the shapes that its methods take and give. */
import * as check from "./check";
import type { Client } from "./client";
import { connect } from "./connect";
import type { Message } from "./message";
import type { AckRow } from "./types";

/** One recipient's answer as KPS writes it. */
export interface KpsRow {
  ack_id: string;
  client_id: string;
  success: boolean;
  error?: string;
}

/** A message to this client's id as KPS writes it. */
export interface KpsDirect {
  data: unknown;
  from: string;
}

/** A message as it stands on KPS' wire. */
export interface KpsFrame extends KpsDirect {
  action: "publish" | "direct_message";
  topic?: string;
}

/** What `Client.NewClient` takes. */
export interface KpsClientOptions {
  /** @default "localhost:9313" */
  Address?: string;
  /** Empty: the server makes one. @default "" */
  Id?: string;
  /** @default "/ws/bus" */
  Path?: string;
  /** Whether to connect by TLS. @default false */
  Secure?: boolean;
  /** Whether to connect again. @default false */
  Autorestart?: boolean;
  /** The pause before that, in milliseconds. @default 10000 */
  RestartEvery?: number;
  /** Gets messages to this client's id. */
  OnId?: ((message: KpsDirect) => unknown) | null;
  /** Gets every message. */
  OnDataWs?: ((frame: KpsFrame) => unknown) | null;
  /** Called when the client is closed. */
  OnClose?: (() => unknown) | null;
}

/** Handles a message's data; `unsub` ends the subscription. What it throws fails the ack. */
export type KpsCallback = (data: any, unsub: () => void) => unknown;

/** @internal */
export function kpsRow(ackId: string, { clientId, success, status, error }: AckRow): KpsRow {
  const row: KpsRow = { ack_id: ackId, client_id: clientId, success };
  return success ? row : { ...row, error: error?.text ?? status };
}

/** @internal */
export function kpsRows(ackId: string, rows: readonly AckRow[]): Record<string, KpsRow> {
  return Object.fromEntries(rows.map((row) => [row.clientId, kpsRow(ackId, row)]));
}

/** @internal */
export function kpsFrame(message: Message): KpsFrame {
  const { data, sender: from, topic } = message;
  return topic.startsWith("kps.id.")
    ? { action: "direct_message", data, from }
    : { action: "publish", topic, data, from };
}

/** `Client.NewClient`. @internal */
export async function kpsConnect(options: KpsClientOptions): Promise<Client> {
  const { Address = "localhost:9313", Id, Path = "/ws/bus", Secure = false } = options;
  const { Autorestart = false, RestartEvery = 10_000, OnId, OnDataWs, OnClose } = options;
  check.options({ Address, Path, Id }, { Address: "string", Path: "string", Id: "string" });
  const client = await connect(`${Secure ? "wss" : "ws"}://${Address}${Path}`, {
    id: Id || null,
    reconnect: Autorestart,
    reconnectMin: RestartEvery,
    reconnectMax: RestartEvery,
  });
  if (OnId) client.on("message_to_id", ({ data, sender }) => OnId({ data, from: sender }));
  if (OnDataWs) client.on("message_received", (message) => OnDataWs(kpsFrame(message)));
  if (OnClose) client.OnClose(OnClose);
  return client;
}
