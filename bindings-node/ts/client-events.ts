import type { KpsError } from "./errors";
import type { Gap, Message, Resumed } from "./message";
import type { Subscription } from "./subscription";
import type { GapReason, State } from "./types";

/** Arguments of the handlers of `client.on`, by event. */
export interface ClientEvents {
  /** The connection's state changed. */
  state: [state: State];
  /** The handshake is done; whether the earlier session goes on. */
  connection_opened: [resumed: boolean];
  /** The connection was lost. */
  connection_closed: [error: KpsError | null];
  /** The client is closed for good. */
  closed: [error: KpsError | null];
  /** The server is about to close the connection. */
  goaway: [reason: string];
  /** The server accepted a message of this client. */
  message_published: [messageId: string];
  /** A message was refused after `publish` had returned. */
  publish_failed: [id: string, error: KpsError];
  /** Every message this client receives. */
  message_received: [message: Message];
  /** A message to this client's id. What the handler returns answers an ack. */
  message_to_id: [message: Message<any>];
  /** Messages are missing in a subscription. */
  gap: [gap: Gap, subscription: Subscription];
  /** A subscription goes on after a reconnect, without loss. */
  resumed: [resumed: Resumed, subscription: Subscription];
  /** The broker closed a subscription. */
  subscription_closed: [error: KpsError, subscription: Subscription];
  /** The outbox rose above its soft bound, or fell below it again. */
  backpressure: [on: boolean];
  /** What had waited for the connection, so many messages, is accepted or refused. */
  outbox_flushed: [count: number];
  /** A handler threw. */
  handler_error: [error: unknown, message: Message];
  /** The server reported what concerns nothing else, or a handler threw and nobody listens for that. */
  error: [error: unknown];
}

/** What happens at a server. Under a name that clients have too, a server tells this instead. */
export interface OwnServerEvents {
  /** It listens. */
  node_started: [address: string];
  /** It takes no more connections and says goodbye. */
  node_stopping: [];
  /** A client's handshake is done; `name` is whom its token stands for. */
  connection_opened: [clientId: string, name: string | null, remote: string, protocol: string, resumed: boolean];
  /** Its connection ended. */
  connection_closed: [clientId: string, reason: string];
  /** A client's session began. */
  client_connected: [clientId: string];
  /** It is over: said goodbye, or did not come back. */
  client_disconnected: [clientId: string];
  /** A client subscribed. */
  subscription_opened: [clientId: string, topic: string];
  /** A subscription ended. */
  subscription_closed: [clientId: string, topic: string];
  /** A message was accepted; `size` in bytes. */
  message_published: [clientId: string, topic: string, messageId: string, size: number];
  /** Publishers wait for room in a subscription, or have not had to for a second. */
  backpressure: [clientId: string, topic: string, on: boolean];
  /** A subscription lost messages: the sum of a second. */
  messages_dropped: [clientId: string, topic: string, count: number, reason: GapReason];
  /** A durable gave a message up. */
  dead_lettered: [durable: string, topic: string, messageId: string, error: string];
  /** Nothing more is stored until the server is started again. */
  store_failed: [error: KpsError];
  /** A connection was refused or broke the rules; a handler of the server's own client threw. */
  error: [error: unknown, clientId?: string | null, remote?: string | null];
  /** So many events came while nobody took them. */
  events_dropped: [count: number];
}

/** Arguments of the handlers of `server.on`, by event. */
export type ServerEvents = Omit<ClientEvents, keyof OwnServerEvents> & OwnServerEvents;

/** What every client tells. @internal */
export const CLIENT_EVENTS: readonly (keyof ClientEvents)[] = [
  "state",
  "connection_opened",
  "connection_closed",
  "closed",
  "goaway",
  "message_published",
  "publish_failed",
  "message_received",
  "message_to_id",
  "gap",
  "resumed",
  "subscription_closed",
  "backpressure",
  "outbox_flushed",
  "handler_error",
  "error",
];

/** What a server tells beside that, or instead. @internal */
export const SERVER_EVENTS: readonly (keyof OwnServerEvents)[] = [
  "node_started",
  "node_stopping",
  "connection_opened",
  "connection_closed",
  "client_connected",
  "client_disconnected",
  "subscription_opened",
  "subscription_closed",
  "message_published",
  "backpressure",
  "messages_dropped",
  "dead_lettered",
  "store_failed",
  "error",
  "events_dropped",
];
