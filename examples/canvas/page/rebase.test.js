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
  version = (count = this.operations.length) => `W/"${count}"`;

  /** The events that everybody hears. */
  take({ opId, base, edits }) {
    if (base !== this.version()) {
      const missing = this.operations.slice(Number(base.slice(3, -1)));
      return [{ event: "conflict", op_id: opId, base_version: base, missing_ops: missing }];
    }
    const splices = edits.map(({ position, length = 0, text = "" }) => [position, length, text]);
    for (const [at, remove, insert] of splices) {
      assert.ok(at + remove <= this.characters.length, "the server would reject it: position_out_of_range");
      assert.ok(insert.isWellFormed(), "half a character cannot travel");
      this.characters.splice(at, remove, ...insert);
    }
    this.operations.push({ op_id: opId, version: this.version(this.operations.length + 1), splices });
    return [{ event: "change", ...this.operations.at(-1) }];
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
  constructor(name) {
    Object.assign(this, { name, count: 0, replica: new Replica(textOf(""), 'W/"0"'), editor: textOf("") });
  }
  type(changes) {
    this.editor = changes.apply(this.editor);
    this.replica.edit(changes);
    this.send();
  }
  send() {
    const next = this.replica.take(() => `${this.name}-${this.count++}`);
    if (next) this.outbox.push({ ...next });
  }
  hear() {
    const event = this.inbox.shift();
    if (event.event === "change") {
      this.editor = this.replica.apply(event).apply(this.editor);
    } else if (event.op_id === this.replica.sent?.opId) {
      // On one stream what was missed has been heard already.
      assert.equal(event.missing_ops.at(-1).version, this.replica.version);
      this.conflicts++;
      this.replica.refused();
    }
    assert.equal(this.editor.toString(), this.replica.view.toString());
    this.send();
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

function session(seed, { deletes = true } = {}) {
  const pick = random(seed);
  const server = new Server();
  const all = ["ada", "bob", "eve"].map((name) => new Participant(name));
  const written = [];
  const type = (who) => {
    if (deletes) return who.type(randomEdit(who.editor, pick));
    const token = `<${who.name}${written.length}${PIECES[7 + pick(2)]}>`;
    written.push(token);
    const at = unitsAt(who.editor, pick(countPoints(who.editor.toString()) + 1));
    return who.type(ChangeSet.of({ from: at, insert: textOf(token) }, who.editor.length));
  };
  const steps = [
    type,
    (who) => who.inbox.length && who.hear(),
    (who) => {
      const next = who.outbox.shift();
      const events = next ? server.take(next) : [];
      for (const event of events) for (const other of all) other.inbox.push(event);
    },
  ];
  for (let step = 0; step < 150; step++) steps[pick(3)](all[pick(3)]);
  while (all.some((who) => who.inbox.length || who.outbox.length)) for (const who of all) for (const step of steps.slice(1)) step(who);
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

test("nothing that was typed is lost or doubled by conflicts", () => {
  for (let seed = 0; seed < ROUNDS; seed++) {
    const { server, written } = session(seed, { deletes: false });
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
