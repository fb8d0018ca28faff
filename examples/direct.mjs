// A message to one client by its id; what its handler returns is the answer.
import { connect } from "kps";

const url = process.argv[2];
const ada = await connect(url, { id: "ada" });
const bob = await connect(url, { id: "bob" });
bob.on("message_to_id", (message) => {
  console.log(`bob hears: ${message.data}, from ${message.sender}`);
  return "I am";
});
ada.publishToId("bob", "good morning");
const rows = await ada.publishToIdWithAck("bob", "are you there?", 5000).wait();
console.log(`ada hears: ${rows.bob.data}, from bob`);
await ada.close();
await bob.close();
