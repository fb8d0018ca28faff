//! The operations, described for people and programs.

use super::super::Operation;

/// Their names.
pub(super) const NAMES: [&str; 20] = [
    "save",
    "get",
    "exists",
    "delete",
    "list",
    "save_many",
    "get_many",
    "delete_many",
    "transaction",
    "history",
    "watch",
    "unwatch",
    "query",
    "stat",
    "upload",
    "upload_part",
    "upload_done",
    "upload_cancel",
    "get_part",
    "configure_cloud",
];

const KEY: (&str, &str, &str) = ("key", "string", "the key, 1 to 1,024 bytes");
const IF_MATCH: (&str, &str, &str) =
    ("if_match?", "string", "only if the value has this ETag; \"*\": only if there is one");
const IF_NONE_MATCH: (&str, &str, &str) =
    ("if_none_match?", "string", "\"*\": only if there is no value");
const TTL: (&str, &str, &str) = ("ttl?", "number", "seconds after which it expires");
const CONTENT_TYPE: (&str, &str, &str) =
    ("content_type?", "string", "what the value is, for its readers");
const LIMIT: (&str, &str, &str) = ("limit?", "integer", "1 to 1,000; 100 unless told");
const PREFIX: (&str, &str, &str) = ("prefix?", "string", "what keys begin with");
const UPLOAD: (&str, &str, &str) = ("upload", "string", "the upload's token");

pub(super) fn describe() -> Vec<Operation> {
    let operation = |name: &str, summary: &str, fields: &[(&str, &str, &str)]| {
        Operation::new(name, summary).fields(fields)
    };
    vec![
        operation(
            "save",
            "Saves a value under a key: anything JSON knows, bytes, exact integers, arrays of numbers.",
            &[KEY, ("value", "", "the value"), TTL, IF_MATCH, IF_NONE_MATCH, CONTENT_TYPE],
        ),
        operation(
            "get",
            "A key's value.",
            &[
                KEY,
                ("if_none_match?", "string", "without the value if it still has this ETag"),
                ("version?", "string", "an ETag that history told"),
            ],
        ),
        operation("exists", "Whether there is a value.", &[KEY]),
        operation("delete", "Deletes a key.", &[KEY, IF_MATCH]),
        operation(
            "list",
            "Keys in the order of their bytes, a page at a time.",
            &[PREFIX, LIMIT, ("cursor?", "string", "what the page before said")],
        ),
        operation(
            "save_many",
            "Saves several values, each for itself.",
            &[("items", "array", "payloads of save, 1,000 at most")],
        ),
        operation("get_many", "The values of several keys.", &[("keys", "array", "1,000 at most")]),
        operation(
            "delete_many",
            "Deletes several keys, each for itself.",
            &[("keys", "array", "1,000 at most")],
        ),
        operation(
            "transaction",
            "Several operations, all or none.",
            &[(
                "operations",
                "array",
                "1,000 at most: payloads of save, delete and get, and {key, if_match} of check, each with op",
            )],
        ),
        operation("history", "The versions of a key, the newest first.", &[KEY, LIMIT]),
        operation(
            "watch",
            "Calls a function of this process for every change.",
            &[PREFIX, ("callback", "", "is given {event, key, etag, size, modified}")],
        ),
        operation("unwatch", "Ends a watch.", &[("watch", "string", "what watch answered")]),
        operation(
            "query",
            "SQL over entries(key, size, etag, modified, expires, content_type, json), read-only.",
            &[
                ("sql", "string", "one SELECT"),
                ("parameters?", "", "a list for ?, an object for :name"),
                ("limit?", "integer", "rows, 1 to 10,000; 1,000 unless told"),
            ],
        ),
        operation("stat", "How much there is, and the limits.", &[]),
        operation(
            "upload",
            "Begins a value that comes in parts.",
            &[KEY, TTL, IF_MATCH, IF_NONE_MATCH, CONTENT_TYPE],
        ),
        operation(
            "upload_part",
            "The next part of an upload.",
            &[
                UPLOAD,
                ("number", "integer", "from 0"),
                ("bytes", "", "1 MiB at most; part_size is best"),
            ],
        ),
        operation("upload_done", "Makes what was uploaded the value.", &[UPLOAD]),
        operation("upload_cancel", "Forgets an upload.", &[UPLOAD]),
        operation(
            "get_part",
            "A part of a value's bytes.",
            &[
                KEY,
                ("offset?", "integer", "from 0"),
                ("length?", "integer", "1 MiB at most; 512 KiB unless told"),
                ("etag?", "string", "conflict if it is another by now"),
            ],
        ),
        operation(
            "configure_cloud",
            "Says which libSQL database large values go to; only from the storage's own process.",
            &[
                (
                    "url?",
                    "string",
                    "libsql://…, https://… or http://…; without one there is no cloud any more",
                ),
                ("auth_token?", "string", "its token"),
                ("max_local_size?", "integer", "bytes of a value that stays here"),
                (
                    "cache_size?",
                    "integer",
                    "bytes of values of the cloud that are cached; 64 MiB unless told",
                ),
                ("cache_age?", "number", "seconds for which they are; 60 unless told"),
            ],
        ),
    ]
}
