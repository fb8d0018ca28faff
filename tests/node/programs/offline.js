// Publishes while nobody listens, and ends.
const { connect } = require("kps");

connect("ws://127.0.0.1:9", { wait: false }).then((client) => {
  for (let n = 0; n < 3; n++) client.publish("programs.offline", n);
});
