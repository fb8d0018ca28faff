// Where others write: a coloured caret with a name for each author, and what was moved by a conflict, marked.
import { Annotation, RangeSet, StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, WidgetType } from "@codemirror/view";

/** What came from others: it is not sent to them. */
export const remote = Annotation.define();
/** {author, anchor, head, colour}; without `head` the author is gone. */
export const caret = StateEffect.define();
/** [{from, to}, …] that a conflict has moved. */
export const rebased = StateEffect.define();

class Caret extends WidgetType {
  constructor(author, colour) {
    super();
    Object.assign(this, { author, colour });
  }
  eq(other) {
    return other.author === this.author && other.colour === this.colour;
  }
  toDOM() {
    const [bar, name] = [document.createElement("span"), document.createElement("span")];
    bar.className = "caret";
    bar.style.setProperty("--colour", this.colour);
    name.textContent = this.author; // What others say is text, and nothing else.
    bar.append(name);
    return bar;
  }
}

const carets = StateField.define({
  create: () => new Map(),
  update(carets, transaction) {
    const all = new Map();
    const { changes } = transaction;
    for (const [author, it] of carets) {
      all.set(author, { ...it, anchor: changes.mapPos(it.anchor), head: changes.mapPos(it.head) });
    }
    for (const effect of transaction.effects.filter((effect) => effect.is(caret))) {
      const { author, ...it } = effect.value;
      const clamp = (place) => Math.min(place, transaction.newDoc.length);
      if (it.head === undefined) all.delete(author);
      else all.set(author, { ...it, anchor: clamp(it.anchor), head: clamp(it.head) });
    }
    return all;
  },
  provide: (field) => EditorView.decorations.from(field, decorated),
});

function decorated(carets) {
  const ranges = [];
  for (const [author, { anchor, head, colour }] of carets) {
    ranges.push(Decoration.widget({ widget: new Caret(author, colour), side: 1 }).range(head));
    const [from, to] = [Math.min(anchor, head), Math.max(anchor, head)];
    const attributes = { class: "selected", style: `--colour: ${colour}` };
    if (from < to) ranges.push(Decoration.mark({ attributes }).range(from, to));
  }
  return RangeSet.of(ranges, true);
}

const moves = StateField.define({
  create: () => Decoration.none,
  update(marks, transaction) {
    marks = marks.map(transaction.changes);
    for (const effect of transaction.effects.filter((effect) => effect.is(rebased))) {
      const ranges = effect.value.filter(({ from, to }) => from < to);
      marks = Decoration.set(ranges.map(({ from, to }) => Decoration.mark({ class: "rebased" }).range(from, to)));
    }
    return marks;
  },
  provide: (field) => EditorView.decorations.from(field),
});

export const others = [carets, moves];

/** A colour for each author, the same in every window. */
export function colourOf(author) {
  let hash = 0;
  for (const character of author) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return `hsl(${hash} 65% 42%)`;
}
