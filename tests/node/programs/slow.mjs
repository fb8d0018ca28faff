// A module that is ready when it is told so.
import { BroadcastChannel, threadId } from "node:worker_threads";

const channel = new BroadcastChannel("starting");
await new Promise((ready) => {
  channel.onmessage = ready;
  channel.postMessage(threadId);
});
channel.close();

export const hang = (how) => {
  if (how === "loop") new BroadcastChannel("hanging").postMessage(threadId);
  while (how === "loop");
  return threadId;
};
