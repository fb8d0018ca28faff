// The page: an editor on a shared document, who else is there, and what happens.
import { standardKeymap } from "@codemirror/commands";
import { EditorState } from "@codemirror/state";
import { EditorView, drawSelection, keymap, lineNumbers } from "@codemirror/view";
import { caret, colourOf, others, rebased, remote } from "./carets.js";
import { SharedDocument } from "./document.js";

/** Somebody of whom nothing was heard so long is gone. */
const GONE = 30_000;
/** Lines of the log that are kept. */
const LINES = 200;

const at = (id) => document.getElementById(id);
const { server, document: id, start } = await (await fetch("config.json")).json();
const name = new URLSearchParams(location.search).get("name") ?? "Guest";
const author = `${name} ${crypto.randomUUID().slice(0, 3)}`;

const shared = new SharedDocument(server, id, author);
const text = await shared.open();
const view = new EditorView({
  parent: at("editor"),
  state: EditorState.create({
    doc: text,
    extensions: [
      // Lines as the server counts them: \r is a character.
      EditorState.lineSeparator.of("\n"),
      keymap.of([{ key: "Mod-z", run: undo, preventDefault: true }, ...standardKeymap]),
      [lineNumbers(), drawSelection(), EditorView.lineWrapping, others],
      EditorView.contentAttributes.of({ "aria-label": "The document" }),
      EditorView.updateListener.of(updated),
    ],
  }),
});

function updated({ transactions }) {
  for (const transaction of transactions) {
    if (transaction.annotation(remote)) continue;
    if (transaction.docChanged) shared.edit(transaction.changes);
    if (transaction.docChanged || transaction.selection) shared.moved();
  }
}

function undo() {
  shared.undo().catch((error) => log("failed", error.message));
  return true;
}

shared.cursor = () => {
  const { anchor, head } = view.state.selection.main;
  return { anchor, head };
};

const heard = new Map();

/** Shows where somebody is; without `head`: that they are gone. */
function show(who, anchor, head) {
  clearTimeout(heard.get(who));
  heard.delete(who);
  if (head !== undefined) heard.set(who, setTimeout(() => dispatch({ effects: show(who) }), GONE));
  at("others").replaceChildren(...[...heard.keys()].map(badge));
  return caret.of({ author: who, anchor, head, colour: colourOf(who) });
}

function badge(who) {
  const it = document.createElement("span");
  it.className = "author";
  it.style.setProperty("--colour", colourOf(who));
  it.textContent = who;
  return it;
}

/** Shows what came from others: it is not sent to them. */
function dispatch(what) {
  view.dispatch({ ...what, annotations: remote.of(true) });
}

shared.addEventListener("change", ({ detail: { changes, author: who, caret: place } }) => {
  const isOther = who && who !== author && place !== undefined;
  dispatch({ changes, effects: isOther ? show(who, place, place) : [] });
});

shared.addEventListener("cursor", ({ detail: { author: who, anchor, head } }) => {
  dispatch({ effects: show(who, anchor, head) });
});

shared.addEventListener("rebased", ({ detail: { ranges } }) => {
  dispatch({ effects: rebased.of(ranges) });
});

shared.addEventListener("log", ({ detail: { kind, text } }) => log(kind, text));

function log(kind, text) {
  const line = document.createElement("li");
  line.className = kind;
  line.textContent = `${kind} ${text}`;
  at("log").prepend(line);
  if (at("log").childElementCount > LINES) at("log").lastChild.remove();
}

function turned() {
  const { status, version, counts, isPending } = shared;
  at("status").className = status;
  at("status").textContent = `${status} ${version ?? ""}${isPending ? " …" : ""}`;
  at("counts").textContent = `${counts.ack} acks, ${counts.conflict} conflicts, ${counts.rejected} rejected`;
}
shared.addEventListener("turn", turned);
turned();

at("me").append(badge(author));
at("undo").onclick = undo;
at("start").onclick = () => {
  // Any topic of the bus can be published to, by anybody: the agent has subscribed to this one.
  fetch(`${server}/v1/publish/${start}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
};
addEventListener("pagehide", () => shared.close());
view.focus();

/** For tests, and for the curious in their console. */
globalThis.canvas = { shared, view };
document.body.dataset.ready = "yes";
