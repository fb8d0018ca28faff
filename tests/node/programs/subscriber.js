// Stays as long as its subscription does; with "unref" it ends at once.
const { connect } = require("kps");

const [url, how] = process.argv.slice(2);
connect(url).then(async (client) => {
  const subscription = await client.subscribe("programs.subscriber", ({ data }) => {
    console.log("got", data);
    if (data === "stop") void subscription.unsubscribe();
  });
  if (how === "unref") subscription.unref();
  if (how === "unref client") client.unref();
  console.log("ready");
});
