// ws through relay.mjs, which passes every message on to the other connections: the least that a broker can do.
import WebSocket from "ws";
import { PAYLOAD } from "./payload.mjs";

const ROOM = 1 << 20;

export class Peer {
  waiting = new Map();

  constructor(url) {
    this.url = url;
  }

  async open() {
    this.socket = new WebSocket(this.url, { perMessageDeflate: false });
    this.socket.on("message", (data) => this.receive?.(JSON.parse(data)));
    await new Promise((resolve, reject) => this.socket.once("open", resolve).once("error", reject));
  }

  async publish(_topic, first, last) {
    const payload = { ...PAYLOAD };
    for (let n = first; n < last; n++) {
      payload.n = n;
      this.socket.send(JSON.stringify(payload));
      if (n % 256 === 0) await this.room();
    }
  }

  /** Waits until the socket's buffer has room. */
  async room() {
    do await new Promise(setImmediate);
    while (this.socket.bufferedAmount > ROOM);
  }

  async subscribe(_topic, check) {
    this.receive = check;
  }

  async answer(_topic) {
    this.receive = (request) => this.socket.send(JSON.stringify(request));
  }

  request(_topic, payload) {
    this.receive ??= (answer) => {
      this.waiting.get(answer.n)(answer);
      this.waiting.delete(answer.n);
    };
    return new Promise((resolve) => {
      this.waiting.set(payload.n, resolve);
      this.socket.send(JSON.stringify(payload));
    });
  }
}
