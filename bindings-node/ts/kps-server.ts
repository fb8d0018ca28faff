import type { Ack } from "./ack";
import * as check from "./check";
import { KpsError } from "./errors";
import type { KpsCallback } from "./kps";
import { type OnConnect, Server } from "./server";

/**
 * A server as KPS programs make it: first set up, then `Run`. What is asked of it before waits
 * for that.
 */
export class KpsServer {
  private server: Server | undefined;
  private readonly waiting: ((server: Server) => void)[] = [];

  /** Starts listening, on `host:port` or `:port`. */
  async Run(address: string = "localhost:9313"): Promise<void> {
    check.string("address", address);
    const listen = address.startsWith(":") ? `127.0.0.1${address}` : address;
    const server = await Server.start({ listen });
    this.server = server;
    for (const act of this.waiting.splice(0)) act(server);
  }

  /** Where it listens; empty before `Run`. */
  get address(): string {
    return this.server?.address ?? "";
  }

  /** Like the client's. */
  Subscribe(topic: string, callback: KpsCallback): () => void {
    check.string("topic", topic);
    check.fn("callback", callback);
    this.act((server) => server.Subscribe(topic, callback));
    return () => this.Unsubscribe(topic);
  }

  /** Like the client's. */
  Unsubscribe(topic: string): void {
    this.act((server) => server.Unsubscribe(topic));
  }

  /** Like the client's. */
  Publish(topic: string, data: unknown): void {
    this.act((server) => server.Publish(topic, data));
  }

  /** Like the client's. */
  PublishToID(targetID: string, data: unknown): void {
    this.act((server) => server.PublishToID(targetID, data));
  }

  /** Like the client's. */
  PublishToServer(addr: string, data: unknown, secure: boolean = false): void {
    this.act((server) => server.PublishToServer(addr, data, secure));
  }

  /** Like the client's; not before `Run`. */
  PublishWithAck(topic: string, data: unknown, timeout?: number): Ack {
    return this.running().PublishWithAck(topic, data, timeout);
  }

  /** Like the client's; not before `Run`. */
  PublishToIDWithAck(targetID: string, data: unknown, timeout?: number): Ack {
    return this.running().PublishToIDWithAck(targetID, data, timeout);
  }

  /** Clients connected. */
  CountClients(): number {
    return this.server?.CountClients() ?? 0;
  }

  /** Subscriptions that a message on `topic` would reach. */
  CountSubscribers(topic: string): number {
    return this.server?.CountSubscribers(topic) ?? 0;
  }

  /** `fn` decides who may connect. */
  OnUpgradeWS(fn: OnConnect): void {
    this.act((server) => server.OnUpgradeWS(fn));
  }

  /** `fn` gets messages to the server's id. */
  OnID(fn: (data: any) => unknown): void {
    this.act((server) => server.OnID(fn));
  }

  /** `fn` gets messages of other servers. */
  OnServerData(fn: (data: any) => unknown): void {
    this.act((server) => server.OnServerData(fn));
  }

  /** Closes it. */
  async Close(): Promise<void> {
    await this.server?.Close();
  }

  private act(act: (server: Server) => void): void {
    if (this.server === undefined) this.waiting.push(act);
    else act(this.server);
  }

  private running(): Server {
    if (this.server === undefined) throw new KpsError("not_connected", "the server does not run yet: call Run first");
    return this.server;
  }
}

/** A server as KPS programs make it; `Run` starts it. */
export function NewServer(): KpsServer {
  return new KpsServer();
}
