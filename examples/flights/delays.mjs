// Hears every flight, keeps delays per route, carrier and month, and answers questions about them.
import { connect } from "kps";

const client = await connect(process.argv[2], { id: "delays" });
const routes = {};
const carriers = {};
const months = {};
let received = 0;

function count(table, key, { arr_delay: delay }) {
  const entry = (table[key] ??= { flights: 0, landed: 0, minutes: 0 });
  entry.flights += 1;
  if (delay === null) return;
  entry.landed += 1;
  entry.minutes += delay;
}

await client.subscribe("flights.>", ({ topic, data }) => {
  received += 1;
  count(routes, topic, data);
  count(carriers, data.carrier, data);
  count(months, data.month, data);
});

await client.subscribe("delays.worst", ({ data: { routes: wanted, landed } }) =>
  Object.entries(routes)
    .filter(([, entry]) => entry.landed >= landed)
    .map(([topic, entry]) => ({ route: topic.split(".").slice(1).join(" → "), ...entry, mean: entry.minutes / entry.landed }))
    .sort((a, b) => b.mean - a.mean)
    .slice(0, wanted),
);
await client.subscribe("delays.totals", () => ({ carriers, months }));
await client.subscribe("report.delays", () => received);
await client.subscribe("demo.over", () => setImmediate(() => client.close()));
client.publish("demo.ready", client.id);
