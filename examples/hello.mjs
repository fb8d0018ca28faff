// Publish and subscribe.
import { connect } from "kps";

const client = await connect(process.argv[2]);
const greetings = await client.subscribe("greetings.*");
client.publish("greetings.english", { text: "Hello, world" });
client.publish("greetings.french", { text: "Bonjour, le monde" });
for await (const message of greetings) {
  console.log(message.topic, message.data.text);
  if (message.topic === "greetings.french") break;
}
await client.close();
