// Every name of the API used with its types. Checked by `tsc --strict`; never run.
import {
  type AckRow, type CallContext, type CallError, type Client, type CloseReport, type ConnectRequest, type ContentType, type DispatchOptions, type Envelope,
  type DocumentErrorCode, type DocumentKind, type DocumentPresence, type DocumentVersions, type Edit, type Edited, type ErrorCode, type GapReason,
  type ReceiptLevel, type RegisterOptions, type RowStatus, type State, type TaskContext, type TaskFunction, type TaskModule, type TaskOptions, Ack, Document, DocumentStream, EditReceipt, Gap, KpsError, Message, Receipt, Response, Server,
  type StorageOptions, type Stored, type StoredPage, type StoredValue, Storage, StorageStream, Subscription, YjsDocument, connect,
} from "kps";
import * as kps from "kps";

export async function connecting(): Promise<void> {
  const client: Client = await connect("ws://127.0.0.1:9313", {
    id: "a", token: "t", namespace: "n", timeout: 1000, wait: true, reconnect: true, reconnectMin: 100,
    reconnectMax: 5000, outboxSoft: 1, outboxHard: 2, outboxOverflow: "drop_oldest", ca: "ca.pem", bigints: true,
  });
  const state: State = client.state;
  console.log(state, client.id, client.url);
  await using other = await connect();
  other.unref();
}

export async function subscribing(client: Client): Promise<void> {
  const subscription: Subscription = await client.subscribe("t.*", async (message) => ({ n: message.raw.length }), {
    group: "g", concurrency: 2, overflow: "drop_oldest", capacity: 10, start: "new",
  });
  for await (const item of subscription) {
    if (item instanceof Gap) {
      const reason: GapReason = item.reason;
      const count: number | null = item.count;
      console.log(reason, count, item.topic, item.first, item.last);
    } else {
      const type: ContentType = item.contentType;
      const headers: Readonly<Record<string, string>> = item.headers;
      console.log(type, headers, item.id, item.sender, item.seq, item.epoch, item.time, item.attempt, item.maybeDuplicate, item.retained);
      item.respond({ ok: true });
      item.fail(new Error("no"));
    }
  }
  for await (const batch of subscription.batches()) console.log(batch.length);
  console.log(subscription.topic, subscription.ledger().delivered);
  subscription.unref();
  await subscription.unsubscribe();
  await client.unsubscribe("t");
}

export async function publishing(client: Client): Promise<void> {
  const receipt: Receipt = client.publish("t", { n: 1 }, { headers: { a: "b" }, id: "x", ttl: 1500, receipt: "accepted", retain: true });
  client.publish("t", 1, { to: ["client-7", "principal:alice"], private: true, offline: "latest" });
  const level: ReceiptLevel = await receipt;
  console.log(level, receipt.id);
  await client.publishToId("b", new Uint8Array(3));
  await client.publishToServer("127.0.0.1:9313", "text", { secure: false });
  const ack: Ack = client.publishWithAck("t", null, 1000);
  const rows: Record<string, AckRow> = await ack.wait();
  const first: AckRow | null = await ack.waitAny();
  const status: Record<string, boolean> = ack.status();
  const complete: boolean = ack.isComplete();
  for await (const row of ack) {
    const how: RowStatus = row.status;
    console.log(how, row.success, row.latency, row.data, row.error?.type, row.error?.text, row.clientId);
  }
  ack.cancel();
  ack.unref();
  console.log(rows, first, status, complete, client.publishToIdWithAck("b", 1, undefined, { id: "i", private: true }), await client.request("t", [1, 2], 500, { to: ["b"], ttl: 100 }));
}

class Adder {
  static readonly operations = { add: { type: "object" } };
  async init(): Promise<void> {}
  add({ a, b }: { a: number; b: number }, context: CallContext): number {
    context.progress({ attempt: context.attempt, left: context.deadline - Date.now() });
    if (context.signal.aborted) throw new KpsError("unavailable", `no more, ${context.caller}`, { retry: true });
    return a + b + context.id.length + context.operation.length;
  }
}

export async function calling(client: Client, server: Server): Promise<void> {
  const how: RegisterOptions = { shared: true, concurrency: 8, debug: true };
  await client.register("adder", Adder, how);
  await client.register("other", new Adder());
  const options: DispatchOptions = {
    timeout: 1000, retry: 2, target: "any", idempotencyKey: "k", onProgress: (progress) => progress, signal: AbortSignal.timeout(500),
  };
  const response: Response<number> = await client.dispatch<number>("adder.add", { a: 1, b: 2 }, options);
  const sum: number = response.unwrap();
  const error: CallError | null = response.error;
  const envelope: Envelope = response.toJSON();
  const code: ErrorCode | undefined = error?.code;
  console.log(sum, code, error?.retry, error?.field, error?.type, error?.traceback, envelope.status, response.ok, response.data);
  console.log(response.id, response.status, response.duration, response.attempts, response.provider, await server.dispatch("kps.ping"));
  await client.unregister("adder");
}

export async function computing(client: Client): Promise<void> {
  const double: TaskFunction<number> = async (data, { signal, deadline }: TaskContext) => (signal.aborted ? deadline : 2 * data);
  const how: TaskOptions = { concurrency: 2, shared: true, summary: "Twice as much." };
  await client.registerTask("double", double, how);
  const where: TaskModule = { module: new URL("file:///tasks.mjs"), export: "sum" };
  await client.registerTask("sum", where, { isolated: true, memoryLimit: 64 << 20 });
  await client.registerTask("other", { module: "./other.mjs" });
  await client.unshareTask("double");
  await client.shareTask("factorial");
  await client.unregisterTask("double");
}

export async function ending(client: Client): Promise<void> {
  const remove = client.on("publish_failed", (id, error) => console.log(id, error.code));
  client.on("message_to_id", (message: Message) => message.data);
  remove();
  console.log(client.ledger().published, client.timeline()[0]?.event);
  await client.flush();
  const report: CloseReport = await client.close(1000);
  console.log(report.flushed, report.kept, report.abandoned);
}

export async function serving(): Promise<void> {
  await using server = await Server.start({ listen: "127.0.0.1:0", id: "hub", token: "t", stallTimeout: 1000 });
  server.onConnect((request: ConnectRequest) => request.clientId !== "mallory");
  server.onMessageToId((message) => message.data);
  server.onServerMessage((message) => console.log(message.data));
  console.log(server.address, server.countClients(), server.countSubscribers("t"));
}

export async function writing(client: Client): Promise<void> {
  await using page: YjsDocument = await client.openDocument("page", { kind: "yjs", author: "ann" });
  await page.append("x", { root: "title" });
  const state: Uint8Array = page.state(page.stateVector);
  page.applyUpdate(state);
  await using document: Document = await client.openDocument("notes", { kind: "text", author: "ann", rebase: false, rebases: 3, timeout: 2000 });
  const unsynced: string[] = document.unsynced;
  const receipt: EditReceipt = document.edit({ type: "insert", position: 3, text: "x" });
  const { version, level, opId }: Edited = await receipt;
  const edits: Edit[] = [{ type: "delete", anchor: "x" }, { type: "append", text: "y" }];
  const receipts: EditReceipt[] = document.editBatch([edits, edits[0]!]);
  await document.undo(2);
  const versions: DocumentVersions = await document.versions({ before: version, limit: 5 });
  const time: number | undefined = versions.versions[0]?.time;
  {
    await using stream: DocumentStream = document.stream({ after: "x", flushEvery: 100 });
    stream.write("token");
  }
  const off = document.on("conflict", ({ missing_ops }) => console.log(missing_ops?.[0]?.splices));
  document.on("*", (event) => event.event === "ack" && console.log(event.level));
  document.on("presence", ({ state }: DocumentPresence) => state?.["cursor"]);
  // @ts-expect-error
  document.edit({ type: "insert", text: "where?" });
  // @ts-expect-error
  document.on("changed", () => {});
  off();
  document.setPresence({ cursor: 3 });
  const kind: DocumentKind = document.kind;
  console.log(unsynced, level, opId, receipts.length, time, kind, document.presence[0]?.state["cursor"], await document.at(version));
  const left: string[] = await document.unref().close(1000);
  await document.append("z").then(undefined, (error: unknown) => console.log(left, (error as KpsError).code === "anchor_not_found", (error as KpsError).event?.event));
}

export async function asKps(): Promise<void> {
  const client = await kps.Client.NewClient({ Id: "a", Address: "localhost:9313" });
  const unsubscribe = client.Subscribe("t", (data) => console.log(data));
  client.Publish("t", 1);
  const ack = client.PublishWithAck("t", 1, 5000);
  const { response, success } = await ack.WaitAny();
  console.log(await ack.Wait(), response, success, await ack.GetStatus(), await ack.IsComplete());
  ack.Cancel();
  unsubscribe();
  await client.Close();
}

export function failing(error: unknown): ErrorCode | DocumentErrorCode | undefined {
  return error instanceof KpsError ? error.code : undefined;
}

export function listening(client: Client, server: Server): void {
  client.on("connection_opened", (resumed: boolean) => resumed);
  client.on("backpressure", (on: boolean) => on);
  server.on("connection_opened", (clientId, name, remote, protocol, resumed: boolean) => [clientId, name, remote, protocol, resumed]);
  server.on("messages_dropped", (clientId: string, topic: string, count: number) => [clientId, topic, count]);
  server.on("gap", (gap) => gap.reason);
  const entries: string[] = server.timeline().map(({ event }) => event);
  const asClient: Client = server;
  void [entries, asClient];
}

export async function keeping(film: NodeJS.ReadableStream, out: NodeJS.WritableStream & import("node:stream").Writable): Promise<void> {
  const own: StorageOptions = { path: "values.db", key: new Uint8Array(32), versions: 3, durability: "normal", maxValue: 5 };
  const client = await connect("mem://", { storage: own });
  await Server.start({ storage: "values.db" });
  const storage: Storage = client.storage;
  const saved: Stored = await storage.save("k", film, {
    ttl: 5, ifMatch: "*", contentType: "film", target: "server", signal: AbortSignal.timeout(5),
    onProgress: (done: number, total: number | null) => console.log(done, total),
  });
  const { value, modified }: StoredValue<number> = await storage.get<number>("k", { ifNoneMatch: saved.etag, version: null });
  console.log(value + modified, saved.expires, saved.possiblyStale);
  const stream: StorageStream = await storage.stream("k", { target: "client:b" });
  for await (const piece of stream) console.log(piece.length, stream.etag, stream.size, stream.info.location);
  stream.close();
  await storage.getTo("k", "copy");
  await storage.getTo("k", new URL("file:///copy"), { onProgress: (done: number) => done });
  await storage.getTo("k", out);
  const both: boolean = (await storage.exists("k")) && (await storage.delete("k", { ifMatch: saved.etag }));
  const page: StoredPage = await storage.list("k", { limit: 5, cursor: null });
  console.log(both, page.items.length, page.cursor);
}
