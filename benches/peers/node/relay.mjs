// The broker of peer_ws.mjs: every message goes to all other connections.
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });
server.on("connection", (socket) => {
  socket.on("message", (data, binary) => {
    for (const other of server.clients) if (other !== socket) other.send(data, { binary });
  });
});
