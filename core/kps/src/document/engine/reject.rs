//! Why an operation is not applied.

use std::fmt;

use crate::capability::Failure;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Why an operation was rejected, as programs match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Its name on the wire, in every language.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }
        }
    };
}

codes! {
    /// It is not written as an operation is.
    Invalid = "invalid_operation";
    /// The edit is none of this kind of document.
    WrongKind = "wrong_kind";
    /// The position, or the end of the range, lies behind the end of the text.
    OutOfRange = "position_out_of_range";
    /// The anchor's text is not there.
    AnchorNotFound = "anchor_not_found";
    /// The anchor's text is there more than once.
    AnchorNotUnique = "anchor_not_unique";
    /// The JSON Patch names a path that is not there.
    InvalidPatch = "invalid_patch";
    /// A `test` of the JSON Patch found something else.
    TestFailed = "test_failed";
    /// JSON goes deeper than documents may.
    TooDeep = "too_deep";
    /// The operation has more bytes than one may.
    OperationTooLarge = "operation_too_large";
    /// The operation has more edits than one may.
    TooManyEdits = "too_many_edits";
    /// The document would have more bytes than one may.
    DocumentTooLarge = "document_too_large";
    /// An operation with this id and another content was applied.
    OpIdReused = "op_id_reused";
    /// An operation before it in its batch was not applied.
    Skipped = "skipped";
    /// The author has nothing that could be undone.
    NothingToUndo = "nothing_to_undo";
    /// Somebody has changed since what would be undone.
    UndoConflict = "undo_conflict";
    /// Too much waits to be stored.
    TooManyPending = "too_many_pending";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rejection: nothing of the operation was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: Code,
    /// What happened and what to do.
    pub message: String,
}

impl Reject {
    #[cold]
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Reject {
        Reject { code, message: message.into() }
    }
}

impl From<Failure> for Reject {
    fn from(failure: Failure) -> Reject {
        Reject::new(Code::Invalid, failure.message)
    }
}
