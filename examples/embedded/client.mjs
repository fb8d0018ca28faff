// Asks the program that embeds the broker, and tells it what it heard.
import { connect } from "kps";

const client = await connect(process.argv[2], { id: "visitor" });
const weather = await client.request("weather.request", { place: "Lyon" });
const rows = await client.publishWithAck("report", `${weather.celsius} °C in ${weather.place}`).wait();
console.log("visitor hears:", ...Object.values(rows).map((row) => row.data));
await client.close();
