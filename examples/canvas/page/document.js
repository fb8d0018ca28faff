// A browser's client of a kps document over HTTP and server-sent events alone: no package of kps is needed.
//
// Operations go out by POST, which answers no more than "received". What became of them comes back as events on the
// document's stream, and everybody hears the same: `change` (somebody's operation was applied), `ack` (yours was),
// `conflict` (yours came too late), `rejected` (yours never will be). There is one order of things, the stream's.
import { Replica, countPoints, moved, numberOf, pointsAt, textOf, unitsAt } from "./rebase.js";

const EVENTS = ["change", "ack", "conflict", "rejected", "checkpoint", "store_failed", "presence", "resumed", "gap"];
/** Milliseconds before something that failed is tried again. */
const PAUSE = 1000;
/** Others forget a cursor that was not told for 30 s. */
const PRESENCE_EVERY = 10_000;
/** Operations by which a cursor that is told may be behind. */
const RECENT = 200;

/**
 * Tells `change` {changes, author, caret} for the editor, `cursor` {author, anchor, head}, `rebased` {ranges},
 * `log` {kind, text}, and `turn` after whatever happened.
 */
export class SharedDocument extends EventTarget {
  status = "connecting";
  /** How many operations of ours were acknowledged, came too late, were rejected. */
  counts = { ack: 0, conflict: 0, rejected: 0 };
  /** Where the cursor is, {anchor, head}, or null: the editor sets it. */
  cursor = () => null;
  #url;
  #replica = null;
  #stream = null;
  /** The place in the stream to go on from. */
  #last = "";
  /** Something was missed: what the server has is not known here. */
  #isLost = true;
  /** What the server said of the document when it was opened. */
  #opened = {};
  /** Events that wait while the document is read. */
  #held = null;
  /** The latest operations. */
  #recent = [];
  #hasMoved = false;
  #timer;

  /** `author`: one for each window, for whoever undoes takes back the author's operations. */
  constructor(server, id, author) {
    super();
    this.#url = `${server}/v1/documents/${encodeURIComponent(id)}`;
    this.author = author;
  }

  get text() {
    return this.#replica.view.toString();
  }

  get version() {
    return this.#replica?.version;
  }

  /** Whether something was typed of which is not known yet that the server has it. */
  get isPending() {
    return this.#isLost || this.#replica.isPending;
  }

  /** Opens the document, or makes it if there is none. Returns its text. */
  async open() {
    this.#listen();
    await this.until(() => this.#replica);
    this.#timer = setInterval(() => this.moved(), PRESENCE_EVERY);
    return this.text;
  }

  /** Somebody typed `changes` of the text here. They go out at once, or after those that are on their way. */
  edit(changes) {
    this.#replica.edit(changes);
    this.#goOn();
    this.#tell("turn");
  }

  /** Takes back this author's last operation; what others wrote since stays. What became of it is an event, too. */
  async undo() {
    await this.until(() => !this.isPending);
    await this.#call("POST", "/undo", { op_id: crypto.randomUUID(), author: this.author });
  }

  /** The cursor has moved: others are told. */
  moved() {
    this.#hasMoved = true;
    this.#tellCursor();
  }

  close() {
    clearInterval(this.#timer);
    this.#stream.close();
    this.#presence(null).catch(() => {});
  }

  /** Waits until `is` is true. */
  until(is) {
    return new Promise((resolve) => {
      const look = () => {
        if (!is()) return;
        this.removeEventListener("turn", look);
        resolve();
      };
      this.addEventListener("turn", look);
      look();
    });
  }

  // --- what is heard --------------------------------------------------------------------------------------------

  #listen() {
    const from = this.#last && `?last_event_id=${encodeURIComponent(this.#last)}`;
    const stream = new EventSource(`${this.#url}/events${from}`);
    this.#stream = stream;
    stream.onopen = () => {
      this.status = "live";
      // The stream first, then the document: nothing can happen between the two and be missed.
      if (this.#last === "") this.#lose();
      this.#tell("turn");
    };
    stream.onerror = () => {
      this.status = "offline";
      this.#tell("turn");
      // Else the browser connects again by itself, and tells the server where it was.
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => this.#listen(), PAUSE);
    };
    for (const name of EVENTS) {
      stream.addEventListener(name, (event) => {
        this.#last = event.lastEventId;
        const data = JSON.parse(event.data);
        if (this.#held) this.#held.push([name, data]);
        else this.#hear(name, data);
      });
    }
  }

  #hear(name, event) {
    const isOurs = this.#replica?.isWaiting === true && this.#replica.sent.opId === event.op_id;
    if (name === "change") this.#change(event.previous, event);
    else if (name === "ack") this.#ack(event, isOurs);
    else if (name === "conflict" && isOurs) this.#conflict(event);
    else if (name === "rejected") this.#rejected(event, isOurs);
    else if (name === "presence") this.#presented(event);
    else if (name === "gap") this.#lose();
    else if (name === "checkpoint") this.#checkpoint(event);
    else if (name === "store_failed") this.#log(name, event.message);
    // Nothing was missed. But did the server hear what we sent last? The same `op_id` once more does no harm.
    else if (name === "resumed" && this.#replica?.isWaiting) this.#post(this.#replica.sent);
    this.#goOn();
    this.#tellCursor();
    this.#tell("turn");
  }

  #change(previous, operation) {
    const replica = this.#replica;
    if (!replica || numberOf(operation.version) <= numberOf(replica.version)) return;
    if (previous !== replica.version) {
      this.#lose();
      return;
    }
    const { author, splices } = operation;
    this.#recent = [...this.#recent.slice(1 - RECENT), operation];
    const changes = replica.apply(operation);
    this.#forget();
    const last = splices.at(-1);
    const caret = last && this.#placeOf(last[0] + countPoints(last[2]));
    this.#tell("change", { changes, author, caret });
    if (operation.undoes) this.#log("undo", `${author} took back ${operation.undoes.length}`);
  }

  #ack({ author, version, level }, isOurs) {
    if (author !== this.author) return;
    this.counts.ack++;
    this.#log("ack", `${version} ${level}`);
    // As a rule its `change` was heard before. Else the text was read with it in it: here it is twice.
    if (isOurs) this.#tell("change", { changes: this.#replica.giveUp(), author });
  }

  /** Ours came too late. What it missed comes with the conflict: one more POST, and it is in. */
  #conflict({ base_version: base, server_version: version, missing_ops: missing }) {
    const replica = this.#replica;
    if (replica.sent.base !== base) return; // It was sent again meanwhile.
    this.counts.conflict++;
    replica.refused();
    this.#isLost = !missing;
    let previous = base;
    for (const operation of missing ?? []) {
      this.#change(previous, operation);
      previous = operation.version;
    }
    const what = missing ? `${missing.length} missing` : "the missing are not known any more";
    this.#log("conflict", `mine was for ${base}, the server has ${version}; ${what}: moved and sent again`);
    this.#tell("rebased", { ranges: this.#ranges() });
    if (!missing || numberOf(replica.version) < numberOf(version)) this.#lose();
  }

  #rejected({ author, code, message }, isOurs) {
    if (author !== this.author) return;
    this.counts.rejected++;
    this.#log("rejected", `${code}: ${message}`);
    if (isOurs) this.#tell("change", { changes: this.#replica.giveUp(), author });
  }

  #checkpoint({ version, level }) {
    this.#log("checkpoint", `${version} ${level}`);
    if (level === "checkpointed") this.#replica?.checkpoint(version);
  }

  /** A server without a store has nothing to go on from when it ends. */
  #forget() {
    if (!this.#opened.durable) this.#replica.checkpoint(this.version);
  }

  #lose() {
    this.#isLost = true;
    this.#read();
  }

  /**
   * Opens the document, or makes it, or opens it again after something was missed. It is said what is known of it, so
   * that what was missed is the answer; or, after a crash, what the server forgot is found out, and sent again.
   */
  async #read() {
    if (this.#held) return;
    this.#held = [];
    const { lineage } = this.#opened;
    const known = this.#replica ? [this.#replica.version, this.#replica.stored.version] : [];
    const opened = await this.#call("PUT", "", { kind: "text", lineage, known }).catch((error) => this.#log("failed", error.message));
    const held = this.#held;
    this.#held = null;
    if (opened) {
      this.#isLost = false;
      this.#goOnFrom(opened);
      this.#goOn();
    } else {
      setTimeout(() => this.#goOn(), PAUSE);
    }
    for (const [name, event] of held) this.#hear(name, event);
    this.#tell("turn");
  }

  #goOnFrom(opened) {
    const { since, missing_ops: missing, text, version } = opened;
    this.#opened = opened;
    this.#recent = [];
    if (!this.#replica) {
      this.#replica = new Replica(textOf(text), version);
    } else {
      const changes = since ? this.#replica.catchUp(since, missing) : this.#replica.reset(textOf(text), version);
      this.#tell("change", { changes, author: null });
      // The same `op_id` once more does no harm, if the server has it already.
      if (this.#replica.isWaiting) this.#post(this.#replica.sent);
    }
    this.#forget();
    for (const one of opened.presence ?? []) this.#presented(one);
  }

  // --- what is sent ---------------------------------------------------------------------------------------------

  #goOn() {
    if (this.#isLost) {
      this.#read();
      return;
    }
    const next = this.#replica.take(() => crypto.randomUUID());
    if (!next) return;
    next.lineage = this.#opened.lineage;
    this.#post(next);
  }

  async #post(sent) {
    const { opId, base, lineage, edits } = sent;
    const operation = { op_id: opId, base_version: base, lineage, author: this.author, edit: edits };
    const isWanted = () => this.#replica.sent === sent && sent.base === base;
    try {
      await this.#call("POST", "/operations", operation);
    } catch (error) {
      // Whether it arrived nobody knows; it is sent until an event says so. What the server cannot read is given up.
      if (!error.isFinal) setTimeout(() => isWanted() && this.#post(sent), PAUSE);
      else if (isWanted()) this.#hear("rejected", { author: this.author, op_id: opId, ...error.answer });
    }
  }

  /** Tells where the cursor is, once its place counts in a text that others have. */
  async #tellCursor() {
    const cursor = this.#hasMoved && !this.isPending && this.cursor();
    if (!cursor) return;
    this.#hasMoved = false;
    const { text, version } = this.#replica;
    const [anchor, head] = [pointsAt(text, cursor.anchor), pointsAt(text, cursor.head)];
    const selection = [Math.min(anchor, head), Math.max(anchor, head)];
    await this.#presence({ cursor: head, selection, version }).catch(() => {});
  }

  #presence(state) {
    return this.#call("POST", "/presence", { author: this.author, state }, { keepalive: true });
  }

  async #call(method, path, body, options) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(this.#url + path, { method, headers, body: JSON.stringify(body), ...options });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    const isFinal = response.status >= 400 && response.status < 500 && ![404, 408, 429].includes(response.status);
    throw Object.assign(new Error(answer.error?.message ?? response.statusText), { isFinal, answer: answer.error });
  }

  // --- places ---------------------------------------------------------------------------------------------------

  #presented({ author, state }) {
    if (author === this.author || !this.#replica) return;
    if (state === null) {
      this.#tell("cursor", { author });
      return;
    }
    const { cursor, selection, version } = state;
    const anchor = selection?.find((end) => end !== cursor) ?? cursor;
    if (![anchor, cursor].every(Number.isInteger) || typeof version !== "string") return; // Of another program.
    const since = this.#recent.filter((operation) => numberOf(operation.version) > numberOf(version));
    const here = (points) => this.#placeOf(since.reduce((at, { splices }) => moved(at, splices), points));
    this.#tell("cursor", { author, anchor: here(anchor), head: here(cursor) });
  }

  /** Where a code point of the server's text is in the editor. */
  #placeOf(points) {
    const { text, sent, unsent } = this.#replica;
    const units = unitsAt(text, points);
    return unsent.mapPos(sent ? sent.changes.mapPos(units) : units);
  }

  /** Where in the editor the operation is that is sent next. */
  #ranges() {
    const { sent, unsent } = this.#replica;
    const ranges = [];
    sent?.changes.iterChangedRanges((_from, _to, from, to) => {
      ranges.push({ from: unsent.mapPos(from), to: unsent.mapPos(to, 1) });
    });
    return ranges;
  }

  #log(kind, text) {
    this.#tell("log", { kind, text });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
