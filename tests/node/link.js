"use strict";
// A TCP link that a test may cut, freeze and restore.

const net = require("node:net");

class Link {
  /** Forwards a port of 127.0.0.1 to `target`, a function that gives "host:port". */
  constructor(target) {
    this.target = target;
    this.address = "";
    this.refusing = false;
    this.frozen = false;
    this.sockets = new Set();
    this.waiting = [];
    this.server = net.createServer((socket) => this.accept(socket));
  }

  async open({ cut = false, frozen = false } = {}) {
    if (cut) this.cut();
    if (frozen) this.freeze();
    if (this.address) return;
    await new Promise((done) => this.server.listen(0, "127.0.0.1", done));
    this.address = `127.0.0.1:${this.server.address().port}`;
  }

  accept(near) {
    this.keep(near);
    if (this.refusing) return void near.destroy();
    const [host, port] = this.target().split(":");
    const far = net.connect({ host, port: Number(port), noDelay: true });
    this.keep(far);
    for (const [source, sink] of [[near, far], [far, near]]) {
      source.on("data", (data) => this.pass(() => sink.writable && sink.write(data)));
      source.on("end", () => this.pass(() => sink.end()));
      source.on("close", () => sink.destroySoon());
    }
  }

  keep(socket) {
    this.sockets.add(socket);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  }

  pass(send) {
    if (this.frozen) this.waiting.push(send);
    else send();
  }

  /** Breaks every connection and refuses new ones. */
  cut() {
    this.refusing = true;
    for (const socket of this.sockets) socket.destroy();
  }

  restore() {
    this.refusing = false;
  }

  /** Passes nothing on; connections stay up. */
  freeze() {
    this.frozen = true;
  }

  thaw() {
    this.frozen = false;
    for (const send of this.waiting.splice(0)) send();
  }

  close() {
    this.cut();
    this.server.close();
  }
}

module.exports = { Link };
