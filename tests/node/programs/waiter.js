// Waits for an ack that nobody gives until its timeout; with "unref" it does not.
const { connect } = require("kps");

const [url, how] = process.argv.slice(2);
connect(url).then((client) => {
  const ack = client.publishWithAck("programs.silent", 1, 300);
  if (how === "unref") ack.unref();
  ack.wait().then((rows) => console.log(Object.values(rows)[0].status));
});
