import type { KpsError } from "./errors";
import type { Gap, Message, Resumed } from "./message";
import type { Subscription } from "./subscription";
import type { State } from "./types";

/** Arguments of the handlers of `client.on`, by event. */
export interface ClientEvents {
  /** The connection's state changed. */
  state: [state: State];
  /** Connected; whether the earlier session goes on. */
  connected: [resumed: boolean];
  /** The connection was lost. */
  disconnected: [error: KpsError | null];
  /** The client is closed for good. */
  closed: [error: KpsError | null];
  /** Every message this client receives. */
  message: [message: Message];
  /** A message to this client's id. What the handler returns answers an ack. */
  message_to_id: [message: Message<any>];
  /** Messages are missing in a subscription. */
  gap: [gap: Gap, subscription: Subscription];
  /** A subscription goes on after a reconnect, without loss. */
  resumed: [resumed: Resumed, subscription: Subscription];
  /** The broker closed a subscription. */
  subscription_closed: [error: KpsError, subscription: Subscription];
  /** A message was refused after `publish` had returned. */
  publish_failed: [id: string, error: KpsError];
  /** What had waited for the connection, so many messages, is accepted or refused. */
  outbox_flushed: [count: number];
  /** A handler threw. */
  handler_error: [error: unknown, message: Message];
  /** Servers only: a client connected. */
  client_connected: [clientId: string];
  /** Servers only: a client disconnected. */
  client_disconnected: [clientId: string];
}

/** What every client tells. @internal */
export const CLIENT_EVENTS: readonly (keyof ClientEvents)[] = [
  "state",
  "connected",
  "disconnected",
  "closed",
  "message",
  "message_to_id",
  "gap",
  "resumed",
  "subscription_closed",
  "publish_failed",
  "outbox_flushed",
  "handler_error",
];
