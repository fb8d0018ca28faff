//! Updates into a document of the library.

use std::{
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use bytes::Bytes;
use yrs::{
    Doc, OffsetKind, Options, ReadTxn, Transact, TransactionMut, Update, updates::decoder::Decode,
};

use super::{check, guard};

/// An empty document, in which text is counted as Yjs does it.
pub(super) fn fresh() -> Doc {
    Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() })
}

/// What an update did.
pub(super) struct Merged {
    /// What was new in it; `None`: nothing.
    pub(super) effect: Option<Bytes>,
    /// Something waits for what is not there.
    pub(super) is_missing: bool,
}

/// Merges an update that was looked through. After an error or a panic the document is not to be used again.
pub(super) fn apply(doc: &Doc, update: &[u8]) -> Result<Merged, String> {
    let update = Update::decode_v1(update).map_err(|error| error.to_string())?;
    within(doc, |txn| {
        txn.apply_update(update).map_err(|error| error.to_string())?;
        txn.commit();
        let effect = txn.has_changes().then(|| txn.encode_update_v1().into());
        Ok(Merged { effect, is_missing: txn.has_missing_updates() })
    })
}

/// Several updates as one; `None`: the library does not do it.
pub(super) fn together<'a>(updates: impl Iterator<Item = &'a Bytes>) -> Option<Bytes> {
    let updates: Vec<&Bytes> = updates.collect();
    match updates[..] {
        [] => None,
        [one] => Some(one.clone()),
        _ => {
            let merging = guard::run(updates.len(), || yrs::merge_updates_v1(&updates));
            merging.ok()?.ok().map(Into::into)
        }
    }
}

/// A document that was made again.
pub(super) struct Loaded {
    pub(super) doc: Doc,
    pub(super) types: usize,
    pub(super) turns: usize,
    pub(super) is_missing: bool,
}

/// Makes a document of updates.
pub(super) fn load<'a>(updates: impl Iterator<Item = &'a Bytes>) -> Result<Loaded, String> {
    let updates: Vec<&Bytes> = updates.collect();
    let (mut types, mut turns) = (0, 0);
    for update in &updates {
        let facts = check::update(update)?;
        types += facts.types;
        turns += facts.turns;
    }
    let doc = fresh();
    let work = || {
        within(&doc, |txn| {
            for update in &updates {
                let update = Update::decode_v1(update).map_err(|error| error.to_string())?;
                txn.apply_update(update).map_err(|error| error.to_string())?;
            }
            txn.commit();
            Ok(txn.has_missing_updates())
        })
    };
    let is_missing =
        guard::run(types + turns, work).map_err(|_| "the Yjs library panicked".to_owned())??;
    Ok(Loaded { doc, types, turns, is_missing })
}

/// Works in one transaction.
fn within<T>(
    doc: &Doc,
    work: impl FnOnce(&mut TransactionMut<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let mut txn = ManuallyDrop::new(doc.transact_mut());
    match catch_unwind(AssertUnwindSafe(|| work(&mut txn))) {
        Ok(done) => {
            drop(ManuallyDrop::into_inner(txn));
            done
        }
        // Dropped it would commit, among what is half done: rather the document is never freed.
        Err(panic) => resume_unwind(panic),
    }
}
