// The floor that kps' HTTP is measured beside: `http_server.mjs PORT`. Takes a body apart, answers 202, and tells every
// stream of events.
import { createServer } from "node:http";

const streams = new Set();

createServer((request, answer) => {
  if (request.method === "GET") {
    answer.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    answer.write("retry: 1000\n\n");
    streams.add(answer);
    answer.on("close", () => streams.delete(answer));
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const data = JSON.stringify(JSON.parse(Buffer.concat(parts)));
    for (const stream of streams) stream.write(`event: message\ndata: ${data}\n\n`);
    answer.writeHead(202, { "Content-Type": "application/json" });
    answer.end('{"accepted":1}\n');
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
