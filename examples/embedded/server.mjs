// The broker inside this program; a Python program (client.py) asks it and is heard by it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Server } from "kps";

const server = await Server.start({ listen: "127.0.0.1:0" });
await server.subscribe("weather.request", ({ data }) => ({ celsius: 21, place: data.place }));
const reports = await server.subscribe("report");
const client = fileURLToPath(new URL("client.py", import.meta.url));
const child = spawn(process.env.PYTHON ?? "python3", [client, `ws://${server.address}`], { stdio: "inherit" });
for await (const report of reports) {
  console.log(`${report.sender} says: ${report.data}`);
  console.log("clients:", server.countClients());
  report.respond("thank you");
  break;
}
await once(child, "exit");
await server.close();
