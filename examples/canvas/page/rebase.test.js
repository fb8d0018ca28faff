// Random edits of many at once, over a server that applies or refuses as kps does: all come to one text.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ChangeSet } from "@codemirror/state";
import { Replica, changesOf, countPoints, difference, editsOf, moved, pointsAt, textOf, unitsAt } from "./rebase.js";

const ROUNDS = Number(process.env.KPS_ROUNDS ?? 300);
const PIECES = ["a", "b", " ", "\n", "\r\n", "ß", "日", "😀", "👩‍👩‍👧", "e\u0301", "🇪🇺", "word", "𝄞𝄞"];

/** Numbers that a seed gives, below `most`: mulberry32. */
function random(seed) {
  return (most) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * most);
  };
}

/** The server's side: it never moves an edit, it applies it or says what it missed. */
class Server {
  characters = [];
  operations = [];
  /** How many of them a crash leaves. */
  stored = 0;
  reserved = 0;

  get number() {
    return this.operations.at(-1)?.number ?? 0;
  }

  get version() {
    return `W/"${this.number}"`;
  }

  /** What happened after a version; undefined if it is none of its own. */
  since(version) {
    const place = this.operations.findIndex((operation) => operation.version === version);
    return version === 'W/"0"' || place >= 0 ? this.operations.slice(place + 1) : undefined;
  }

  /** The events that everybody hears. */
  take({ opId, base, edits }) {
    if (this.operations.some((operation) => operation.op_id === opId)) return [{ event: "ack", op_id: opId }];
    if (base !== this.version) {
      return [{ event: "conflict", op_id: opId, base_version: base, missing_ops: this.since(base) }];
    }
    const splices = edits.map(({ position, length = 0, text = "" }) => [position, length, text]);
    this.#edit(splices);
    const number = Math.max(this.number, this.reserved) + 1;
    this.operations.push({ op_id: opId, number, version: `W/"${number}"`, splices });
    return [{ event: "change", ...this.operations.at(-1) }];
  }

  #edit(splices) {
    for (const [at, remove, insert] of splices) {
      assert.ok(at + remove <= this.characters.length, "the server would reject it: position_out_of_range");
      assert.ok(insert.isWellFormed(), "half a character cannot travel");
      this.characters.splice(at, remove, ...insert);
    }
  }

  open(known) {
    const since = known.find((version) => this.since(version));
    return { since, missing: this.since(since) };
  }

  checkpoint() {
    this.stored = this.operations.length;
    return [{ event: "checkpoint", version: this.version }];
  }

  crash() {
    this.reserved = Math.max(this.number, this.reserved) + 100;
    this.operations.length = this.stored;
    this.characters = [];
    for (const { splices } of this.operations) this.#edit(splices);
  }

  get text() {
    return this.characters.join("");
  }
}

/** A participant whose messages take their time, and who checks what its editor shows. */
class Participant {
  outbox = [];
  inbox = [];
  conflicts = 0;
  isLost = false;
  count = 0;
  editor = textOf("");
  replica = new Replica(textOf(""), 'W/"0"');

  constructor(name) {
    this.name = name;
  }

  type(changes) {
    this.editor = changes.apply(this.editor);
    this.replica.edit(changes);
    this.send();
  }

  send() {
    const next = this.isLost ? null : this.replica.take(() => `${this.name}-${this.count++}`);
    if (next) this.outbox.push({ ...next });
  }

  hear() {
    const { replica } = this;
    const event = this.inbox.shift();
    const isOurs = replica.isWaiting && event.op_id === replica.sent.opId;
    if (event.event === "change") this.show(replica.apply(event));
    else if (event.event === "checkpoint") replica.checkpoint(event.version);
    else if (event.event === "conflict" && isOurs && event.base_version === replica.sent.base) {
      // On one stream what was missed has been heard already.
      assert.ok(event.missing_ops === undefined || event.missing_ops.at(-1).version === replica.version);
      this.conflicts++;
      replica.refused();
    }
    this.send();
  }

  /** What was under way is gone. */
  lose() {
    Object.assign(this, { isLost: true, inbox: [], outbox: [] });
  }

  reopen(server) {
    const { replica } = this;
    const { since, missing } = server.open([replica.version, replica.stored.version]);
    this.show(replica.catchUp(since, missing));
    this.isLost = false;
    if (replica.isWaiting) this.outbox.push({ ...replica.sent });
    this.send();
  }

  show(changes) {
    this.editor = changes.apply(this.editor);
    assert.equal(this.editor.toString(), this.replica.view.toString());
  }
}

function randomEdit(text, pick) {
  const changes = [];
  let place = 0;
  const points = countPoints(text.toString());
  for (let count = 1 + pick(3); count > 0 && place <= points; count--) {
    const from = place + pick(points - place + 1);
    const to = Math.min(points, from + [0, 0, 1, 3][pick(4)]);
    const insert = pick(3) ? PIECES[pick(PIECES.length)] : "";
    changes.push({ from: unitsAt(text, from), to: unitsAt(text, to), insert: textOf(insert) });
    place = to + 1;
  }
  return ChangeSet.of(changes, text.length);
}

/** Three who write at once; with `faults` they lose connections, and the server crashes. */
function session(seed, { deletes = true, faults = false } = {}) {
  const pick = random(seed);
  const server = new Server();
  const all = ["ada", "bob", "eve"].map((name) => new Participant(name));
  const written = [];
  const tell = (events) => {
    for (const event of events) for (const who of all) if (!who.isLost) who.inbox.push(event);
  };
  const type = (who) => {
    if (deletes) return who.type(randomEdit(who.editor, pick));
    const token = `<${who.name}${written.length}${PIECES[7 + pick(2)]}>`;
    written.push(token);
    const at = unitsAt(who.editor, pick(countPoints(who.editor.toString()) + 1));
    return who.type(ChangeSet.of({ from: at, insert: textOf(token) }, who.editor.length));
  };
  const go = [
    (who) => (who.isLost ? who.reopen(server) : who.inbox.length && who.hear()),
    (who) => who.outbox.length && tell(server.take(who.outbox.shift())),
  ];
  const fail = (who) => {
    const kind = pick(12);
    if (kind < 2) who.lose();
    else if (kind < 4) tell(server.checkpoint());
    else if (kind === 4) {
      server.crash();
      for (const who of all) who.lose();
    }
  };
  const steps = [type, ...go, ...(faults ? [fail] : [])];
  for (let step = 0; step < 200; step++) steps[pick(steps.length)](all[pick(3)]);
  while (all.some((who) => who.isLost || who.inbox.length || who.outbox.length)) {
    for (const who of all) for (const step of go) step(who);
  }
  return { server, all, written };
}

test("whatever is typed at once, all participants and the server come to one text", () => {
  let conflicts = 0;
  for (let seed = 0; seed < ROUNDS; seed++) {
    const { server, all } = session(seed);
    for (const { name, editor, replica, ...who } of all) {
      assert.equal(editor.toString(), server.text, `${name}, seed ${seed}`);
      assert.equal(replica.isPending, false);
      conflicts += who.conflicts;
    }
  }
  assert.ok(conflicts > ROUNDS);
});

test("also when connections are lost and the server crashes and forgets what was not stored", () => {
  for (let seed = 0; seed < ROUNDS; seed++) {
    const { server, all } = session(seed, { faults: true });
    for (const { name, editor, replica } of all) {
      assert.equal(editor.toString(), server.text, `${name}, seed ${seed}`);
      assert.equal(replica.isPending, false);
    }
  }
});

test("nothing that was typed is lost or doubled by conflicts and crashes", () => {
  for (let seed = 0; seed < ROUNDS; seed++) {
    const { server, written } = session(seed, { deletes: false, faults: seed % 2 > 0 });
    const characters = [...written.join("")].sort().join("");
    assert.equal([...server.text].sort().join(""), characters, `seed ${seed}`);
  }
});

test("a word stays one, though an agent appends where it is typed", () => {
  const replica = new Replica(textOf(""), 'W/"0"');
  let version = 0;
  for (const [place, letter] of [..."word"].entries()) {
    replica.edit(ChangeSet.of({ from: place, insert: letter }, replica.view.length));
    const { opId } = replica.take(() => `own-${place}`);
    const end = countPoints(replica.text.toString());
    replica.apply({ op_id: `agent-${place}`, version: `W/"${++version}"`, splices: [[end, 0, "token "]] });
    replica.refused();
    replica.take();
    replica.apply({ op_id: opId, version: `W/"${++version}"`, splices: [[place, 0, letter]] });
  }
  assert.equal(replica.text.toString(), `word${"token ".repeat(4)}`);
  assert.equal(replica.isPending, false);
});

test("edits count code points, and read back are the same change", () => {
  for (let seed = 0; seed < ROUNDS; seed++) {
    const pick = random(seed);
    let text = textOf("");
    for (let step = 0; step < 10; step++) {
      const changes = randomEdit(text, pick);
      const splices = editsOf(changes, text).map(({ position, length = 0, text = "" }) => [position, length, text]);
      const after = changes.apply(text);
      assert.equal(changesOf(splices, text).apply(text).toString(), after.toString());
      text = after;
    }
  }
});

test("an emoji is one character on the server and two units here", () => {
  const text = textOf("a😀b");
  const typed = ChangeSet.of({ from: 3, insert: "x" }, text.length);
  assert.deepEqual(editsOf(typed, text), [{ type: "insert", position: 2, text: "x" }]);
  assert.equal(changesOf([[1, 1, "👍"], [2, 0, "!"]], text).apply(text).toString(), "a👍!b");
  assert.equal(pointsAt(text, 3), 2);
  assert.equal(unitsAt(text, 99), text.length);
});

test("\\r\\n stays two characters, as on the server", () => {
  const text = changesOf([[0, 0, "a\r\nb"]], textOf("")).apply(textOf(""));
  assert.equal(text.toString(), "a\r\nb");
  assert.equal(changesOf([[3, 1, "c"]], text).apply(text).toString(), "a\r\nc");
});

test("an operation of which others left nothing is not sent again", () => {
  const replica = new Replica(textOf("abc"), 'W/"1"');
  replica.edit(ChangeSet.of({ from: 0, to: 2 }, 3));
  replica.take(() => "mine");
  replica.apply({ op_id: "theirs", version: 'W/"2"', splices: [[0, 3, ""]] });
  replica.refused();
  assert.equal(replica.take(() => "next"), null);
  assert.equal(replica.isPending, false);
});

test("what the server rejects is taken back, and what was typed since stays", () => {
  const replica = new Replica(textOf("abc"), 'W/"1"');
  replica.edit(ChangeSet.of({ from: 1, to: 2, insert: "too much" }, 3));
  replica.take(() => "first");
  replica.edit(ChangeSet.of({ from: 10, insert: "!" }, 10));
  const before = replica.view;
  const back = replica.giveUp();
  assert.equal(back.apply(before).toString(), "abc!");
  assert.equal(replica.view.toString(), "abc!");
});

test("a document that was read again keeps what is not sent yet", () => {
  const replica = new Replica(textOf("one two"), 'W/"1"');
  replica.edit(ChangeSet.of({ from: 7, insert: " three" }, 7));
  const before = replica.view;
  const changes = replica.reset(textOf("one 2 two"), 'W/"9"');
  assert.equal(changes.apply(before).toString(), "one 2 two three");
  assert.deepEqual(replica.take(() => "x").edits, [{ type: "insert", position: 9, text: " three" }]);
  assert.equal(difference(textOf("😀😀"), textOf("😀x😀")).toString(), "2 0:1 2");
});

test("a cursor moves with what is written before it", () => {
  assert.equal(moved(5, [[0, 0, "😀"]]), 6);
  assert.equal(moved(5, [[5, 0, "x"]]), 5);
  assert.equal(moved(5, [[3, 9, "ab"]]), 5);
  assert.equal(moved(5, [[0, 2, ""], [0, 0, "abc"]]), 6);
});
