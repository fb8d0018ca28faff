// `cold.mjs PEER cold URL OPTIONS`: how long a fresh Node needs to import a client and to connect; `bare` does neither.
const [name, , url] = process.argv.slice(2);

const start = performance.now();
const module = name === "bare" ? {} : await import(name);
const imported = performance.now();
if (name === "ws") await new Promise((open) => new module.WebSocket(url).once("open", open));
else if (name !== "bare") await (name === "nats" ? module.connect({ servers: url }) : module.connect(url));
const connected = performance.now();

const at = Number(process.hrtime.bigint()) / 1e9;
const took = { import: (imported - start) / 1e3, connect: (connected - imported) / 1e3 };
process.stdout.write(JSON.stringify({ event: "ready", at, ...took }) + "\n");
process.stdin.once("data", () => process.exit(0));
