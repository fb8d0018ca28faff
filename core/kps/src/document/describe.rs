//! The operations of the capability `document`, described.

use super::Documents;
use crate::capability;

impl Documents {
    /// The operations, described for people and programs.
    pub(crate) fn describe() -> Vec<capability::Operation> {
        let id = ("id", "string", "the document's name, at most 256 bytes");
        let author = ("author?", "string", "who edits; the client's id unless told");
        let op_id = ("op_id", "string", "unique; sending it again is harmless");
        let edit = ("edit", "", "an edit, or a list of edits that are done together");
        let lineage = ("lineage?", "string", "what open answered");
        let operation = |name: &str, summary: &str, fields: &[(&str, &str, &str)]| {
            capability::Operation::new(name, summary).fields(fields)
        };
        #[cfg(feature = "yjs")]
        let state_vector = ("state_vector?", "bytes", "of what is known; or its base64");
        vec![
            operation(
                "open",
                "Opens a document, or makes it if there is none",
                &[
                    id,
                    ("kind", "string", "text, json or yjs"),
                    #[cfg(feature = "yjs")]
                    state_vector,
                    lineage,
                    (
                        "known?",
                        "array",
                        "versions that are known: operations since are told instead",
                    ),
                    (
                        "in_parts?",
                        "boolean",
                        "all operations since are needed: with more in the answer, ask again for those after its version",
                    ),
                ],
            ),
            operation(
                "edit",
                "Changes a document; what becomes of it is told on its topic as well",
                &[id, op_id, ("base_version", "", "what it is made for"), author, lineage, edit],
            ),
            operation(
                "edit_batch",
                "Several operations, one after the other",
                &[
                    id,
                    author,
                    lineage,
                    (
                        "operations",
                        "array",
                        "{op_id, base_version?, edit}; without base_version it follows the one before",
                    ),
                ],
            ),
            operation(
                "undo",
                "Takes back the author's last operations",
                &[id, op_id, author, ("count?", "integer", "1 to 100; 1 unless told")],
            ),
            operation(
                "read",
                "A document's content; large ones in parts",
                &[
                    id,
                    ("version?", "", "the one there is unless told"),
                    ("root?", "string", "of a Yjs document: the text of this root alone"),
                    ("offset?", "integer", "bytes before the part"),
                ],
            ),
            operation(
                "at",
                "The content that a version had",
                &[
                    id,
                    ("version", "", "the version"),
                    ("offset?", "integer", "bytes before the part"),
                ],
            ),
            operation(
                "versions",
                "The operations that are kept, the newest first",
                &[
                    id,
                    ("before?", "", "only versions before this one"),
                    ("limit?", "integer", "1 to 1,000; 100 unless told"),
                ],
            ),
            operation(
                "compact",
                "Forgets the oldest operations, not what they did",
                &[id, ("keep?", "integer", "how many are kept; 0 unless told")],
            ),
            #[cfg(feature = "yjs")]
            operation(
                "update",
                "Merges an update into a Yjs document",
                &[id, op_id, author, ("update", "bytes", "in version 1; or its base64")],
            ),
            #[cfg(feature = "yjs")]
            operation(
                "sync",
                "What is missing of a Yjs document; much of it in parts",
                &[
                    id,
                    state_vector,
                    ("of?", "", "the version whose state is read in parts"),
                    ("offset?", "integer", "bytes before the part"),
                ],
            ),
            operation("close", "Has it stored now; the caller is not there any more", &[id]),
            operation(
                "presence",
                "Tells who is there: a name, a cursor, whatever others are to see",
                &[
                    id,
                    ("client?", "string", "who is there; the calling client's id unless told"),
                    author,
                    ("state", "", "an object of at most 4 KiB; null: nobody is there any more"),
                ],
            ),
        ]
    }
}
