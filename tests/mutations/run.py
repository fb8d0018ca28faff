"""Breaks core in one place at a time and says whether some test noticed: `make mutations`.

Works on a copy, with build output of its own. Each mutation is judged by the conformance cases, which speak for users,
and if they let it pass by the tests of its room: kps-proto's own (state machines, simulation), or those of documents. One that neither
catches is a hole in the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = {
    "conformance": ["cargo", "test", "--quiet", "-p", "kps", "--test", "conformance"],
    "proto": ["cargo", "test", "--quiet", "-p", "kps-proto"],
    "documents": ["cargo", "test", "--quiet", "-p", "kps", "--lib", "document::"],
}
LONGEST = 900  # seconds; a mutation may make a test wait for ever


@dataclass
class Mutation:
    what: str
    file: str
    before: str
    after: str

    @property
    def suites(self) -> list[str]:
        return ["conformance", "documents" if self.file.startswith(DOCUMENT) else "proto"]


PROTO = "core/proto/src/"
DOCUMENT = "core/kps/src/document/"
MUTATIONS = [
    Mutation(
        "a repeated publish is routed again",
        PROTO + "bus/publish.rs",
        "if frame.number <= session.arrived {\n            return Ok(());\n        }\n        if frame.number != session.arrived + 1 {",
        "if frame.number > session.arrived + 1 {",
    ),
    Mutation(
        "payloads over the limit are taken",
        PROTO + "bus/publish.rs",
        "let size = frame.payload.len();\n        if size > limit {",
        "let size = frame.payload.len();\n        if size > limit && limit == usize::MAX {",
    ),
    Mutation(
        "permissions to publish are not asked for",
        PROTO + "bus/principal.rs",
        "!allowed.iter().any(|pattern| pattern.matches(topic))",
        "allowed.len() > 1_000_000 && topic.is_empty()",
    ),
    Mutation(
        "a group's message goes to its first member always",
        PROTO + "bus/publish.rs",
        "if is_better {\n                best = Some((candidate, fit));",
        "if is_better && candidate == self.members[0] {\n                best = Some((candidate, fit));",
    ),
    Mutation(
        "in a client's row success outweighs failure",
        PROTO + "bus/acks.rs",
        "RowStatus::Acked => 1,",
        "RowStatus::Acked => 4,",
    ),
    Mutation(
        "a client's row carries the newest subscription's data",
        PROTO + "bus/acks.rs",
        "std::cmp::Ordering::Equal if new.oldest < old.oldest => new,",
        "std::cmp::Ordering::Equal if new.oldest > old.oldest => new,",
    ),
    Mutation(
        "a lost connection leaves its rows open",
        PROTO + "bus/sessions.rs",
        "for delivery in deliveries {\n            self.settle_delivery(now, key, delivery, RowStatus::Disconnected);",
        "for delivery in deliveries.into_iter().take(0) {\n            self.settle_delivery(now, key, delivery, RowStatus::Disconnected);",
    ),
    Mutation(
        "an ack's timeout never comes",
        PROTO + "bus/acks.rs",
        "self.timers.insert((deadline, Timer::Ack(key)));",
        "self.timers.insert((deadline + Duration::from_secs(86_400), Timer::Ack(key)));",
    ),
    Mutation(
        "drop_oldest tells nobody what it dropped",
        PROTO + "bus/queue.rs",
        "self.forget(published.cost());\n                    self.note_front(&published, GapReason::Overflow);",
        "self.forget(published.cost());",
    ),
    Mutation(
        "latest keeps every message",
        PROTO + "bus/queue.rs",
        "self.places.insert(published.topic.clone(), place);",
        "let _ = place;",
    ),
    Mutation(
        "what was sent and not received is not sent again after a resume",
        PROTO + "bus/queue.rs",
        "while self.sent.len() > arrived {",
        "while self.sent.len() > arrived && arrived == usize::MAX {",
    ),
    Mutation(
        "messages past their time to live are delivered",
        PROTO + "bus/pull.rs",
        "published.is_expired(now) =>",
        "published.is_expired(now) && published.payload.bytes.len() > 1 << 30 =>",
    ),
    Mutation(
        "a stalled block subscription is never closed",
        PROTO + "bus/parking.rs",
        "Some(since) if waited_for && since + timeout <= now => self.close_slow(now, key),",
        "Some(since) if waited_for && since + timeout * 100_000 <= now => self.close_slow(now, key),",
    ),
    Mutation(
        "an id of another principal is taken over",
        PROTO + "bus/sessions.rs",
        "if self.sessions[holder].principal.name == asks.name {",
        "if self.sessions[holder].principal.name == asks.name || !id.is_empty() {",
    ),
    Mutation(
        "a silent server is not noticed",
        PROTO + "session/link.rs",
        "Phase::Ready if now >= self.received + self.silence() => {",
        "Phase::Ready if now >= self.received + self.silence() * 100_000 => {",
    ),
    Mutation(
        "what was not accepted is not sent again after a resume",
        PROTO + "session/handshake.rs",
        "let released = self.outbox.resume(now, welcome)?;",
        "let released = self.outbox.resume(now, &Welcome { published: u64::MAX >> 12, ..welcome.clone() })?;",
    ),
    Mutation(
        "who catches up with history misses what came meanwhile",
        PROTO + "bus/replay.rs",
        "behind.filter(matching).map(",
        "behind.filter(matching).take(0).map(",
    ),
    Mutation(
        "a receipt says stored before it is",
        PROTO + "bus/history.rs",
        "if history.committed >= history.last {",
        "if history.last > 0 {",
    ),
    Mutation(
        "an id that is kept already is kept again",
        PROTO + "bus/history.rs",
        "if self.ids.contains(space, id, time_ms) {",
        "if self.ids.contains(space, id, time_ms) && id.is_empty() {",
    ),
    Mutation(
        "a durable takes a failure for an ack",
        PROTO + "bus/durable/ending.rs",
        "RowStatus::Acked | RowStatus::Timeout => {",
        "RowStatus::Acked | RowStatus::Timeout | RowStatus::Failed => {",
    ),
    Mutation(
        "a durable's progress is not written",
        PROTO + "bus/durable/mod.rs",
        "out.push(Write::Progress(durable.progress(namespace)));",
        "drop(durable.progress(namespace));",
    ),
    Mutation(
        "after a restart a subscription begins anew instead of at its cursor",
        PROTO + "session/subscriptions.rs",
        "(Some(cursor), true, _) if self.options.group.is_none() => {",
        "(Some(cursor), true, _) if self.options.group.is_some() => {",
    ),
    Mutation(
        "an operation for a document's older version is applied",
        DOCUMENT + "engine/mod.rs",
        "if is_other || operation.base_version != self.version {",
        "if is_other || operation.base_version > self.version {",
    ),
    Mutation(
        "a document takes an operation that is sent again for another one",
        DOCUMENT + "engine/mod.rs",
        "if let Some(outcome) = self.repeated(&operation.op_id, digest) {",
        "if let Some(outcome) = self.repeated(&operation.op_id, digest).filter(|_| digest.0 == 0) {",
    ),
    Mutation(
        "a document gives versions again that a crash took",
        DOCUMENT + "desk.rs",
        "Some(run) => Version(last.max(run.start).0 + pending),",
        "Some(run) => Version(last.max(run.start).0 + pending.min(0)),",
    ),
    Mutation(
        "a document is not stored before a crash could take more than it may",
        DOCUMENT + "desk.rs",
        "self.unstored >= options.checkpoint_operations ||",
        "self.unstored >= options.checkpoint_operations * 3 ||",
    ),
    Mutation(
        "a document's client does not send again what a crash took",
        DOCUMENT + "engine/replica/reopening.rs",
        "            if !own {\n                theirs.push(applied.change);",
        "            if !own || !self.rebases.is_power_of_two() {\n                theirs.push(applied.change);",
    ),
    Mutation(
        "one who opens a document does not know the way back to what is stored",
        DOCUMENT + "engine/introduction.rs",
        "let stored = stored?;",
        "let stored = stored.filter(|it| it.0 > 1 << 50)?;",
    ),
    Mutation(
        "who may read a document may change it",
        DOCUMENT + "access.rs",
        "Err(denied) if !READING.contains(&operation) => Err(denied.into()),",
        "Err(denied) if operation.is_empty() => Err(denied.into()),",
    ),
    Mutation(
        "a document that somebody else stored meanwhile is overwritten",
        DOCUMENT + "shelf.rs",
        "if has_content && stored.mark != writing.mark {",
        "if has_content && stored.mark != writing.mark && stored.base.is_none() {",
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a word of the mutations to try")
    only = parser.parse_args().only
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutations"
    copy = target / "tree"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target / "build"), "CARGO_TERM_QUIET": "true"}
    copy_tree(copy)
    print("unchanged:", *(f"{suite} {verdict(suite, copy, environment)}" for suite in SUITES), flush=True)
    survived = []
    for mutation in MUTATIONS:
        if only and only not in mutation.what:
            continue
        file = copy / mutation.file
        text = file.read_text()
        if text.count(mutation.before) != 1:
            print(f"STALE     {mutation.what}: {mutation.file} does not have its text once", flush=True)
            survived.append(mutation)
            continue
        file.write_text(text.replace(mutation.before, mutation.after))
        said = judge(mutation.suites, copy, environment)
        file.write_text(text)
        if not said.startswith("caught"):
            survived.append(mutation)
        print(f"{mutation.what:70} {said}", flush=True)
    print(f"{len(survived)} not caught")
    return 1 if survived else 0


def copy_tree(copy: Path) -> None:
    """What git knows, with what is changed in the working tree."""
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, files):
        source, destination = ROOT / name, copy / name
        if source.is_file() and not (destination.exists() and destination.read_bytes() == source.read_bytes()):
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination)


def judge(suites: list[str], tree: Path, environment: dict[str, str]) -> str:
    for suite in suites:
        match verdict(suite, tree, environment):
            case "fails":
                return f"caught by {suite}"
            case "does not build":
                return "STALE: does not build"
    return "survived"


def verdict(suite: str, tree: Path, environment: dict[str, str]) -> str:
    command = SUITES[suite]
    build = subprocess.run([*command, "--no-run"], cwd=tree, env=environment, check=False, capture_output=True)
    if build.returncode:
        return "does not build"
    try:
        done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "fails"
    return "fails" if done.returncode else "passes"


if __name__ == "__main__":
    sys.exit(main())
