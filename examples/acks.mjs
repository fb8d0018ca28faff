// Who received it, and what came of it: one row for each client that was subscribed.
import { connect } from "kps";

const url = process.argv[2];
const shop = await connect(url, { id: "shop" });
const warehouse = await connect(url, { id: "warehouse" });
const archive = await connect(url, { id: "archive" });
await warehouse.subscribe("orders.>", () => ({ shelf: 12 }));
await archive.subscribe("orders.>", ({ data }) => {
  throw new Error(`no shelf for ${data.item}`);
});
const ack = shop.publishWithAck("orders.new", { item: "lamp" }, 5000);
const rows = await ack.wait();
for (const [clientId, row] of Object.entries(rows).sort()) {
  console.log(clientId, row.status, row.success ? row.data.shelf : row.error.text);
}
console.log(ack.isComplete() ? "everybody answered" : "somebody did not answer");
await Promise.all([shop, warehouse, archive].map((client) => client.close()));
