// Orders that must not get lost: kept by the broker, handed to a packer until it acks, found again by a late reader.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, Server } from "kps";

const folder = mkdtempSync(join(tmpdir(), "orders-"));
const server = await Server.start({ listen: "127.0.0.1:0", history: ["orders.>"], data: folder });

const shop = await connect(server.url);
for (const [number, item] of ["tea", "milk", "sugar"].entries()) {
  const level = await shop.publish("orders.new", { item }, { id: `order-${number}`, receipt: "stored" });
  console.log("order", number, "is", level);
}
await shop.publish("orders.new", { item: "tea" }, { id: "order-0", receipt: "stored" });
console.log("sent again, kept once");

const packer = await connect(server.url);
let left = 3;
await new Promise((done) => {
  function pack({ data, attempt }) {
    if (data.item === "milk" && attempt === 1) throw new Error("out of milk");
    console.log(`packed ${data.item}, attempt ${attempt}`);
    if (--left === 0) done();
  }
  packer.subscribe("orders.>", pack, { durable: "packing", start: "all", retryDelay: 50 });
});
await packer.close();

const items = [];
for await (const { data } of await shop.subscribe("orders.>", null, { start: "all" })) {
  items.push(data.item);
  if (items.length === 3) break;
}
console.log("a late reader finds", ...items);
await shop.close();
await server.close();
rmSync(folder, { recursive: true });
