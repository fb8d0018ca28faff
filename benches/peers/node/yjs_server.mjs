// The servers that kps' Yjs documents are measured beside: `yjs_server.mjs hocuspocus|y_websocket PORT`, in memory.
import { Server } from "@hocuspocus/server";
import { setupWSConnection } from "@y/websocket-server/utils";
import { WebSocketServer } from "ws";

const [name, port] = process.argv.slice(2);
const address = { address: "127.0.0.1", host: "127.0.0.1", port: Number(port) };

if (name === "hocuspocus") await new Server({ ...address, quiet: true }).listen();
else new WebSocketServer(address).on("connection", setupWSConnection);
