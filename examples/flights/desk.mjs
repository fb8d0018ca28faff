// One of two desks that share the flights: each goes to one of them, and its answer to whoever published the flight.
import { connect } from "kps";

const client = await connect(process.argv[2], { id: process.argv[3] });
let received = 0;

await client.subscribe(
  "flights.>",
  ({ data }) => {
    received += 1;
    return { late: data.dep_delay > 60 };
  },
  { group: "desks" },
);
await client.subscribe(`report.${client.id}`, () => received);
await client.subscribe("demo.over", () => setImmediate(() => client.close()));
client.publish("demo.ready", client.id);
