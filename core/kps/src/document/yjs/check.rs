//! Looks through what somebody sent before the CRDT takes it: sizes that are declared and not there, numbers
//! that overflow and values that go too deep cost memory or the process, whatever the library answers.

use std::collections::HashSet;

use super::lib0::Reader;

/// What an update is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Clients, and gaps in what they wrote: the library may go through them by recursion.
    pub(crate) turns: usize,
    /// Types and documents among them: they may be in each other.
    pub(crate) types: usize,
    /// Whether it does no more than delete.
    pub(crate) only_deletes: bool,
}

/// Clocks are below: the library subtracts them as 32 bit with sign.
const MAX_CLOCK: u64 = i32::MAX as u64;

/// A document in a document weighs as much as so many types.
const SUBDOCUMENT: usize = 100;

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;
const GC: u8 = 0;
const SKIP: u8 = 10;

/// Why bytes are not taken.
type Refusal = &'static str;

const CUT: Refusal = "it ends too early, or is not in version 1 of the encoding";

/// Looks through an update of version 1.
pub(crate) fn update(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut reader = Reader::new(bytes);
    let mut facts = Facts::default();
    let mut clients = HashSet::new();
    for _ in 0..reader.count(4).ok_or(CUT)? {
        let structs = reader.count(2).ok_or(CUT)?;
        let client = reader.int().ok_or(CUT)?;
        if !clients.insert(client) {
            return Err("a client comes twice");
        }
        let mut clock = clock(&mut reader)?;
        for _ in 0..structs {
            clock += one(&mut reader, &mut facts)?;
            if clock > MAX_CLOCK {
                return Err("a clock is too large");
            }
        }
        facts.turns += 1;
    }
    facts.only_deletes = clients.is_empty();
    deletes(&mut reader)?;
    match reader.is_empty() {
        true => Ok(facts),
        false => Err("something follows its end"),
    }
}

/// Looks through a state vector.
pub(crate) fn state_vector(bytes: &[u8]) -> Result<(), Refusal> {
    let mut reader = Reader::new(bytes);
    for _ in 0..reader.count(2).ok_or(CUT)? {
        reader.int().ok_or(CUT)?;
        clock(&mut reader)?;
    }
    reader.is_empty().then_some(()).ok_or("something follows its end")
}

fn clock(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    let clock = reader.int().ok_or(CUT)?;
    if clock > MAX_CLOCK { Err("a clock is too large") } else { Ok(clock) }
}

fn id(reader: &mut Reader<'_>) -> Result<(), Refusal> {
    reader.int().ok_or(CUT)?;
    clock(reader).map(drop)
}

/// One struct; returns how far its client's clock moves.
fn one(reader: &mut Reader<'_>, facts: &mut Facts) -> Result<u64, Refusal> {
    let info = reader.byte().ok_or(CUT)?;
    if matches!(info, GC | SKIP) {
        facts.turns += usize::from(info == SKIP);
        return length(reader);
    }
    if info & HAS_ORIGIN != 0 {
        id(reader)?;
    }
    if info & HAS_RIGHT_ORIGIN != 0 {
        id(reader)?;
    }
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
        match reader.int().ok_or(CUT)? {
            1 => drop(reader.text().ok_or(CUT)?),
            0 => id(reader)?,
            _ => return Err("a parent is neither a root nor a type"),
        }
        if info & HAS_PARENT_SUB != 0 {
            reader.text().ok_or(CUT)?;
        }
    }
    content(reader, info & 0x1f, facts)
}

fn length(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    match reader.int().ok_or(CUT)? {
        0 => Err("a struct is empty"),
        length if length > MAX_CLOCK => Err("a length is too large"),
        length => Ok(length),
    }
}

fn content(reader: &mut Reader<'_>, kind: u8, facts: &mut Facts) -> Result<u64, Refusal> {
    match kind {
        // Deleted.
        1 => return length(reader),
        2 => return Err("it has JSON content, which Yjs wrote before version 13"),
        // Binary.
        3 => drop(reader.buffer().ok_or(CUT)?),
        // Text.
        4 => return Ok(reader.text().ok_or(CUT)?.encode_utf16().count() as u64),
        // An embedded object; a format and its name.
        5 => json(reader)?,
        6 => {
            reader.text().ok_or(CUT)?;
            json(reader)?;
        }
        7 => {
            facts.types += 1;
            match reader.byte().ok_or(CUT)? {
                // Array, map, text, XML fragment, XML text.
                0..=2 | 4 | 6 => {}
                // An XML element has a name.
                3 => drop(reader.text().ok_or(CUT)?),
                _ => return Err("it has a type that is not known here: a hook or a link"),
            }
        }
        // Values.
        8 => {
            let count = reader.count(1).ok_or(CUT)?;
            for _ in 0..count {
                reader.any().ok_or(CUT)?;
            }
            return Ok(count);
        }
        // A document in the document.
        9 => {
            facts.types += SUBDOCUMENT;
            reader.text().ok_or(CUT)?;
            reader.any().ok_or(CUT)?;
        }
        _ => return Err("it has content that is not known here"),
    }
    Ok(1)
}

fn json(reader: &mut Reader<'_>) -> Result<(), Refusal> {
    let text = reader.text().ok_or(CUT)?;
    // What Yjs writes for it.
    if text == "undefined" {
        return Ok(());
    }
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
    parsed.map(drop).map_err(|_| "it embeds JSON that is none")
}

/// The deletions at the end.
fn deletes(reader: &mut Reader<'_>) -> Result<(), Refusal> {
    for _ in 0..reader.count(2).ok_or(CUT)? {
        reader.int().ok_or(CUT)?;
        for _ in 0..reader.count(2).ok_or(CUT)? {
            if clock(reader)? + length(reader)? > MAX_CLOCK {
                return Err("a clock is too large");
            }
        }
    }
    Ok(())
}
