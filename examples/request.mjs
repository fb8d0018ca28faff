// A service answers requests; without one, asking fails at once.
import { connect } from "kps";

const divide = ({ data: { a, b } }) => ({ quotient: a / b });

const service = await connect(process.argv[2]);
const client = await connect(process.argv[2]);
await service.subscribe("math.divide", divide);
const answer = await client.request("math.divide", { a: 7, b: 2 });
console.log("7 / 2 =", answer.quotient);
try {
  await client.request("math.multiply", { a: 7, b: 2 });
} catch (error) {
  console.log("math.multiply:", error.code);
}
await client.close();
await service.close();
