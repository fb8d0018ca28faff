// Connects, publishes if asked to, and ends without closing.
const { connect } = require("kps");

const [url, publishes = "0", flush = "no"] = process.argv.slice(2);
connect(url).then(async (client) => {
  for (let n = 0; n < Number(publishes); n++) client.publish("programs.idle", { pid: process.pid, n });
  if (flush === "flush") await client.flush();
});
