/**
 * kps: the real-time bus that lives inside your program.
 *
 * @packageDocumentation
 */
export { Ack } from "./ack";
export type { CallContext } from "./capability";
export { Client } from "./client";
export type { ClientEvents, ServerEvents } from "./client-events";
export { connect } from "./connect";
export { Document } from "./document";
export { DocumentStream } from "./document-stream";
export type * from "./document-types";
export { EditReceipt } from "./edit-receipt";
export { type DocumentErrorCode, type ErrorCode, KpsError } from "./errors";
export { Retry } from "./retry";
export type { KpsCallback, KpsClientOptions, KpsDirect, KpsFrame, KpsRow } from "./kps";
export { Gap, Message, Resumed } from "./message";
export { type KpsServer, NewServer } from "./kps-server";
export { Receipt } from "./receipt";
export { type CallError, type Envelope, Response } from "./response";
export { type OnConnect, Server } from "./server";
export type { ServerMessage } from "./server-message";
export { Storage, StorageStream } from "./storage";
export { type Item, Subscription } from "./subscription";
export type * from "./types";
export { YjsDocument, YjsReceipt } from "./yjs-document";
