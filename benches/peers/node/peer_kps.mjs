// kps: a handler that reads `message.data`; now and then a receipt is awaited, for back-pressure.
import { connect } from "kps";
import { PAYLOAD } from "./payload.mjs";

export class Peer {
  constructor(url) {
    this.url = url;
  }

  async open() {
    this.client = await connect(this.url);
  }

  async publish(topic, first, last) {
    const payload = { ...PAYLOAD };
    for (let n = first; n < last; n++) {
      payload.n = n;
      const receipt = this.client.publish(topic, payload);
      if (n % 256 === 0) await receipt;
    }
    await this.client.flush();
  }

  async subscribe(topic, check, start = "new") {
    await this.client.subscribe(topic, (message) => check(message.data), { start });
  }

  async answer(topic) {
    await this.client.subscribe(topic, (message) => message.data);
  }

  async request(topic, payload) {
    const [row] = Object.values(await this.client.publishWithAck(topic, payload).wait());
    return row.data;
  }
  async offer(name) {
    await this.client.register(name, { echo: (payload) => payload }, { shared: true });
  }

  async call(name, payload) {
    return (await this.client.dispatch(`${name}.echo`, payload)).unwrap();
  }
}
