// Edits a document: "listen" stays until it reads "stop", "edit" ends at once and waits for nothing.
const { connect } = require("kps");

const [url, how] = process.argv.slice(2);
connect(url).then(async (client) => {
  const document = await client.openDocument("programs");
  if (how === "edit") return void document.append("edited");
  if (how === "await") return void console.log((await document.append("edited")).version);
  const off = document.on("change", () => {
    console.log(document.text);
    if (!document.text.endsWith("stop")) return;
    if (how === "close") void document.close();
    else off();
  });
  if (how === "unref") document.unref();
  console.log("ready");
});
