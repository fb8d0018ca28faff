//! `kps.toml`: the options of `kps serve` in a file.
//!
//! A key is an option's long name, with `_` or `-`. A list is an option given several times, `true` one
//! without a value. What the command line says comes after the file and wins; lists add up.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use kps_proto::{Error, ErrorKind, Result};
use toml::{Table, Value};

/// `args` with the options of the file that `serve --config` names in front of its own.
pub(super) fn expand(args: Vec<OsString>) -> Result<Vec<OsString>> {
    if args.get(1).is_none_or(|command| command != "serve") {
        return Ok(args);
    }
    let Some(file) = named(&args) else { return Ok(args) };
    let mut expanded: Vec<OsString> = args[..2].to_vec();
    expanded.extend(options(Path::new(&file))?.into_iter().map(OsString::from));
    expanded.extend_from_slice(&args[2..]);
    Ok(expanded)
}

/// The value of `--config`.
fn named(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(file) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(OsStr::new(file).to_owned());
        }
    }
    None
}

fn options(file: &Path) -> Result<Vec<String>> {
    let wrong = |what: String| {
        Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let mut options = Vec::new();
    for (key, value) in &table {
        let option = format!("--{}", key.replace('_', "-"));
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            match value {
                Value::Boolean(true) => options.push(option.clone()),
                Value::Boolean(false) => {}
                Value::String(text) => options.extend([option.clone(), text.clone()]),
                Value::Integer(number) => options.extend([option.clone(), number.to_string()]),
                Value::Float(number) => options.extend([option.clone(), number.to_string()]),
                _ => return Err(wrong(format!("{key} is neither a value nor a list of values"))),
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(name: &str, toml: &str) -> Result<Vec<String>> {
        let name = format!("kps-config-{}-{name}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, toml).unwrap();
        let args = ["kps", "serve", "--config", file.to_str().unwrap(), "--json"];
        let expanded = expand(args.iter().map(OsString::from).collect());
        std::fs::remove_file(&file).unwrap();
        Ok(expanded?.into_iter().map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_are_options_and_lists_are_repeated() {
        let toml = "listen = \"127.0.0.1:0\"\nforbid_block = true\ninsecure = false\n\
                    max-connections = 7\nhistory = [\"a.>\", \"b.> age=1d\"]\n";
        let args = expanded("good", toml).unwrap();
        assert_eq!(&args[..2], ["kps", "serve"]);
        let text = args.join(" ");
        assert!(text.contains("--listen 127.0.0.1:0") && text.contains("--max-connections 7"));
        assert!(text.contains("--history a.> --history b.> age=1d"));
        assert!(text.contains("--forbid-block") && !text.contains("--insecure"));
        assert!(text.ends_with(" --json"), "the command line comes last: {text}");
    }

    #[test]
    fn what_is_no_toml_is_said_with_the_file() {
        for toml in ["listen = ", "[section]\na = 1"] {
            let error = expanded("bad", toml).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains("kps-config-"), "{error}");
        }
    }
}
