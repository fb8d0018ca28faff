//! Options of a storage as programs in other languages give them.

use kps_proto::{Error, ErrorKind, Result};

use super::{
    super::{Failure, Fields, Value, wrong},
    Durability, Key, StorageOptions,
};

/// How a language writes names of several words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `max_value`.
    Snake,
    /// `maxValue`.
    Camel,
}

impl StorageOptions {
    /// A text is the path; an object has any of `path`, `key` (32 bytes, or a passphrase), `compress`, `versions`,
    /// `quota`, `durability` (`full` or `normal`), `max_key`, `max_value`, `max_inline` and `max_local_size`, and
    /// defaults for the others.
    ///
    /// # Errors
    /// `invalid_argument`; it names the option, spelled as it was given.
    pub fn read(given: Value, spelling: Spelling) -> Result<StorageOptions> {
        let options = match given {
            Value::Text(path) => path_of(path).map(StorageOptions::at),
            Value::Map(_) => Fields::of(given).and_then(|fields| read(fields, spelling)),
            other => Err(wrong("storage", &other, "a path, or an object of options")),
        };
        options.map_err(|failure| {
            let sentence = match failure.field.as_deref() {
                Some("storage") => failure.message,
                _ => format!("storage: {}", failure.message),
            };
            Error::new(ErrorKind::InvalidArgument, sentence)
        })
    }
}

fn read(mut fields: Fields, spelling: Spelling) -> std::result::Result<StorageOptions, Failure> {
    let mut options = match fields.optional_text("path")? {
        Some(path) => StorageOptions::at(path_of(path)?),
        None => StorageOptions::memory(),
    };
    options.key = fields.given("key").map(key).transpose()?;
    options.compress = fields.flag("compress")?;
    if let Some(versions) = fields.count("versions")? {
        options.versions = u32::try_from(versions).unwrap_or(u32::MAX);
    }
    options.quota = fields.count("quota")?;
    if let Some(name) = fields.optional_text("durability")? {
        options.durability = Durability::from_name(&name).ok_or_else(|| {
            Failure::field("durability", format!("durability is {name:?}; it is full or normal"))
        })?;
    }
    let StorageOptions { max_key, max_value, max_inline, max_local_size, .. } = &mut options;
    let mut key_bytes = *max_key as u64;
    let sizes = [
        ("max_key", "maxKey", &mut key_bytes, 1),
        ("max_value", "maxValue", max_value, 1),
        ("max_inline", "maxInline", max_inline, 1),
        ("max_local_size", "maxLocalSize", max_local_size, 0),
    ];
    for (snake, camel, size, least) in sizes {
        let name = if spelling == Spelling::Snake { snake } else { camel };
        match fields.count(name)? {
            None => {}
            Some(bytes) if bytes < least => {
                let sentence = format!("{name} is {bytes}; it is a number of bytes from {least}");
                return Err(Failure::field(name, sentence));
            }
            Some(bytes) => *size = bytes,
        }
    }
    *max_key = usize::try_from(key_bytes).unwrap_or(usize::MAX);
    fields.done().map_err(|failure| {
        let name = failure.field.unwrap_or_default();
        Failure::field(&name, format!("there is no option {name:?}"))
    })?;
    Ok(options)
}

fn path_of(path: String) -> std::result::Result<String, Failure> {
    if path.is_empty() {
        return Err(Failure::field("path", "path is empty"));
    }
    Ok(path)
}

fn key(given: Value) -> std::result::Result<Key, Failure> {
    match given {
        Value::Text(words) if words.is_empty() => Err(Failure::field("key", "key is empty")),
        Value::Text(words) => Ok(Key::Passphrase(words)),
        Value::Bytes(bytes) => match <[u8; 32]>::try_from(&*bytes) {
            Ok(bytes) => Ok(Key::Bytes(bytes)),
            Err(_) => {
                let length = bytes.len();
                let sentence = format!("key has {length} bytes; it has 32, or is a passphrase");
                Err(Failure::field("key", sentence))
            }
        },
        other => Err(wrong("key", &other, "32 bytes, or a passphrase")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn refused(name: &str, value: impl Into<Value>, spelling: Spelling) -> String {
        let error = StorageOptions::read(Value::map([(name, value.into())]), spelling).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.message().to_owned()
    }

    #[test]
    fn a_text_is_the_path() {
        let options = StorageOptions::read("a/b.db".into(), Spelling::Snake).unwrap();
        assert_eq!(options.path.as_deref(), Some(std::path::Path::new("a/b.db")));
    }

    #[test]
    fn what_is_left_out_is_as_always() {
        let options = Value::map([("versions", 3.into()), ("max_value", 10.into())]);
        let options = StorageOptions::read(options, Spelling::Snake).unwrap();
        let usual = StorageOptions::memory();
        assert_eq!((options.versions, options.max_value), (3, 10));
        assert_eq!((options.path, options.quota), (usual.path, usual.quota));
        assert_eq!((options.max_key, options.durability), (usual.max_key, usual.durability));
    }

    #[test]
    fn names_are_those_of_the_language() {
        let camel = |name| Value::map([(name, Value::from(7))]);
        let options = StorageOptions::read(camel("maxLocalSize"), Spelling::Camel).unwrap();
        assert_eq!(options.max_local_size, 7);
        for (name, spelling) in
            [("maxLocalSize", Spelling::Snake), ("max_local_size", Spelling::Camel)]
        {
            assert!(refused(name, 7, spelling).contains(name));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(&str, Value); 9] = [
            ("path", 1.into()),
            ("path", "".into()),
            ("key", Bytes::from_static(b"short").into()),
            ("key", "".into()),
            ("quota", (-1).into()),
            ("durability", "none".into()),
            ("compress", "yes".into()),
            ("max_value", 0.into()),
            ("fsync", true.into()),
        ];
        for (name, value) in cases {
            let sentence = refused(name, value, Spelling::Snake);
            assert!(sentence.starts_with("storage: ") && sentence.contains(name), "{sentence}");
        }
        let error = StorageOptions::read(7.into(), Spelling::Snake).unwrap_err();
        assert!(error.message().starts_with("storage is "), "{error}");
    }

    #[test]
    fn a_key_is_not_shown() {
        let options = Value::map([("key", "secret words".into())]);
        let options = StorageOptions::read(options, Spelling::Snake).unwrap();
        assert!(!format!("{options:?}").contains("secret"));
    }
}
