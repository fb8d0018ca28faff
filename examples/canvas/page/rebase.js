// A text document as one participant has it: what the server has, the one operation that is on its way, and
// what was typed since. No network here, so that it can be tested with random edits.
//
// The rule that makes it simple: the server never moves an edit. It applies an operation made for its present
// version and refuses any other one as a `conflict`. So whoever comes too late moves their own edit over what
// the others did (`map`, which CodeMirror has) and sends it again, made for the version that it found.
import { ChangeSet, Text } from "@codemirror/state";

/** Lines end with \n alone: CodeMirror would count \r\n as one character, the server counts two. */
export const textOf = (string) => Text.of(string.split("\n"));

// The server counts Unicode code points, JavaScript counts UTF-16 units: an emoji is one there and two here.

/** How many code points a string has. */
export function countPoints(string) {
  let points = 0;
  for (const _ of string) points++;
  return points;
}

/** The place in `text`, in UTF-16 units, of the code point with this number. */
export function unitsAt(text, points) {
  let units = 0;
  for (const chunk of text.iter()) {
    for (const character of chunk) {
      if (points-- === 0) return units;
      units += character.length;
    }
  }
  return units;
}

/** The number of the code point at this place of `text`. */
export const pointsAt = (text, units) => countPoints(text.sliceString(0, units));

/** What an event tells, `[[at, delete, "insert"], …]`, one after the other, as a change of `text`. */
export function changesOf(splices, text) {
  let all = ChangeSet.empty(text.length);
  for (const [at, remove, insert] of splices) {
    const from = unitsAt(text, at);
    const to = from + unitsAt(text.slice(from), remove);
    const one = ChangeSet.of({ from, to, insert: textOf(insert) }, text.length);
    text = one.apply(text);
    all = all.compose(one);
  }
  return all;
}

/** A change of `text` as edits for the server, one after the other. */
export function editsOf(changes, text) {
  const after = changes.apply(text);
  const edits = [];
  changes.iterChanges((from, to, fromAfter, _toAfter, inserted) => {
    // What lies left of it is changed already: its place is that in the text after all of them.
    const position = pointsAt(after, fromAfter);
    const length = countPoints(text.sliceString(from, to));
    const insert = inserted.toString();
    if (length === 0) edits.push({ type: "insert", position, text: insert });
    else if (insert === "") edits.push({ type: "delete", position, length });
    else edits.push({ type: "replace", position, length, text: insert });
  });
  return edits;
}

/** Where a code point is after `splices`. */
export function moved(point, splices) {
  const over = (at, [from, remove, insert]) =>
    at <= from ? at : Math.max(from, at - remove) + countPoints(insert);
  return splices.reduce(over, point);
}

/** What leads from one text to another: whatever differs between what both begin and end with. */
export function difference(before, after) {
  const [a, b] = [[...before.toString()], [...after.toString()]];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  return changesOf([[start, a.length - end - start, b.slice(start, b.length - end).join("")]], before);
}

export class Replica {
  /** What the server has at `version`. */
  text;
  version;
  /**
   * The one operation that is sent next or on its way: a change of `text`. `base`: the version it went out for, until
   * it is known what became of it.
   */
  sent = null;
  /** What was typed since: a change of the text with `sent`. */
  unsent;
  /** The text that is in the server's store, and what happened since: a server that crashes forgets that. */
  stored;
  steps = [];

  constructor(text, version) {
    this.#begin(text, version);
    this.unsent = ChangeSet.empty(text.length);
  }

  #begin(text, version) {
    Object.assign(this, { text, version, stored: { text, version }, steps: [] });
  }

  /** What the editor shows. */
  get view() {
    return this.unsent.apply(this.sent ? this.sent.changes.apply(this.text) : this.text);
  }

  get isPending() {
    return this.sent !== null || !this.unsent.empty;
  }

  /** Whether nobody here knows yet what became of the operation that was sent. */
  get isWaiting() {
    return this.sent !== null && this.sent.base !== null;
  }

  // --- own edits ------------------------------------------------------------------------------------------------

  /** Somebody typed here. */
  edit(changes) {
    this.unsent = this.unsent.compose(changes);
  }

  /** The operation to send now; `null` if there is none, or one is on its way. A new one gets an id. */
  take(newId) {
    if (this.isWaiting) return null;
    // Others may have deleted what it deletes: nothing is left of it.
    if (this.sent?.changes.empty) this.sent = null;
    if (!this.sent) {
      if (this.unsent.empty) return null;
      this.sent = { opId: newId(), changes: this.unsent };
      this.unsent = ChangeSet.empty(this.unsent.newLength);
    }
    this.sent.base = this.version;
    this.sent.edits = editsOf(this.sent.changes, this.text);
    return this.sent;
  }

  /** The server refused it as made for an old version: it may be taken once more, moved over what came since. */
  refused() {
    this.sent.base = null;
  }

  /** The operation on its way will never be applied. Returns what takes it back in the editor. */
  giveUp() {
    const back = this.sent.changes.invert(this.text);
    this.sent = null;
    const ours = this.unsent;
    this.unsent = ours.map(back, true);
    return back.map(ours);
  }

  // --- what the server did --------------------------------------------------------------------------------------

  /** The server applied an operation to its text at `version`. Returns what that changes in the editor. */
  apply({ version, op_id: opId, splices }) {
    const isOwn = this.sent?.opId === opId;
    const changes = changesOf(splices, this.text);
    this.steps.push({ version, changes, isOwn });
    this.version = version;
    if (!isOwn) return this.#receive(changes);
    this.text = changes.apply(this.text);
    this.sent = null;
    return ChangeSet.empty(this.unsent.newLength);
  }

  /**
   * Others changed the text that the server has. What is ours moves over it, and it moves over what is ours: both
   * ways lead to one text. At the same place ours comes first: so it stays behind what was typed before it, even
   * when somebody else writes on exactly there.
   */
  #receive(theirs) {
    this.text = theirs.apply(this.text);
    if (this.sent) {
      const ours = this.sent.changes;
      this.sent.changes = ours.map(theirs, true);
      theirs = theirs.map(ours);
    }
    const ours = this.unsent;
    this.unsent = ours.map(theirs, true);
    return theirs.map(ours);
  }

  /** Everything up to a version is in the server's store. */
  checkpoint(version) {
    while (this.steps.length > 0 && numberOf(this.steps[0].version) <= numberOf(version)) {
      const step = this.steps.shift();
      this.stored = { text: step.changes.apply(this.stored.text), version: step.version };
    }
  }

  // --- after something was missed -------------------------------------------------------------------------------

  /** `missing` is what the server did after `since`, which is known here. Returns what changes in the editor. */
  catchUp(since, missing) {
    let all = ChangeSet.empty(this.unsent.newLength);
    if (since !== this.version) {
      // It went on from what was stored. No version is ever given twice: those that are known are the same.
      const known = new Set(this.steps.map((step) => step.version));
      const last = missing.findLast(({ version }) => known.has(version));
      if (last) this.checkpoint(last.version);
      missing = missing.filter(({ version }) => !known.has(version));
      if (this.steps.length > 0) all = this.#rewind();
    }
    for (const operation of missing) all = all.compose(this.apply(operation));
    return all;
  }

  /** The server forgot what was not stored. What was typed here since is to be sent again; others do as much. */
  #rewind() {
    let { text } = this.stored;
    /** What leads from what there was to what there is without the others. */
    let without = ChangeSet.empty(text.length);
    let own = ChangeSet.empty(text.length);
    const keep = (changes) => {
      own = own.compose(changes.map(without, true));
      without = without.map(changes);
    };
    for (const { changes, isOwn } of this.steps) {
      if (isOwn) keep(changes);
      else without = changes.invert(text).compose(without);
      text = changes.apply(text);
    }
    if (this.sent) keep(this.sent.changes);
    keep(this.unsent);
    Object.assign(this, { sent: null, unsent: own });
    this.#begin(this.stored.text, this.stored.version);
    return without;
  }

  /** The document was read again, and no way is known from here to there. Returns what changes in the editor. */
  reset(text, version) {
    const changes = this.#receive(difference(this.text, text));
    this.#begin(text, version);
    return changes;
  }
}

/** Versions are told as weak ETags, `W/"17"`; a later one has a greater number. */
export const numberOf = (version) => Number(version.slice(3, -1));
