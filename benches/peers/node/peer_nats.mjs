// nats.js: a callback, `JSON`, and a `flush` now and then so that its buffer does not grow without bound.
import { connect } from "nats";
import { PAYLOAD } from "./payload.mjs";

export class Peer {
  constructor(url) {
    this.url = url;
  }

  async open() {
    this.client = await connect({ servers: this.url });
  }

  async publish(topic, first, last) {
    const payload = { ...PAYLOAD };
    for (let n = first; n < last; n++) {
      payload.n = n;
      this.client.publish(topic, JSON.stringify(payload));
      if (n % 512 === 0) await this.client.flush();
    }
    await this.client.flush();
  }

  async subscribe(topic, check) {
    this.client.subscribe(topic, { callback: (_error, message) => check(message.json()) });
    await this.client.flush();
  }

  async answer(topic) {
    this.client.subscribe(topic, {
      callback: (_error, message) => message.respond(JSON.stringify(message.json())),
    });
    await this.client.flush();
  }

  async request(topic, payload) {
    return (await this.client.request(topic, JSON.stringify(payload), { timeout: 30_000 })).json();
  }
  offer(topic) {
    return this.answer(topic);
  }

  call(topic, payload) {
    return this.request(topic, payload);
  }
}
