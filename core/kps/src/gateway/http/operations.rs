//! What comes as operations of a document: one, several, or a bare list of them; and the version that
//! `If-Match` says.

use hyper::{HeaderMap, header};
use kps_proto::ErrorKind;

use super::Fault;
use crate::{
    capability::{Map, Value},
    document::Version,
};

/// What is said once for all operations of a request.
const SHARED: [&str; 2] = ["author", "lineage"];

/// The version in `If-Match`.
///
/// It is what the first operation was made for, and nothing is refused because of it: an older one is a
/// conflict, which is told as an event.
pub(super) fn base(headers: &HeaderMap) -> Result<Option<Version>, Fault> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let version = value.to_str().ok().and_then(|tag| tag.trim().parse().ok());
    match version {
        Some(version) if values.next().is_none() => Ok(Some(version)),
        // Whichever version there is, `*`, would be to write past a conflict.
        _ => Err(Fault::argument("If-Match", "If-Match is one version here, as W/\"17\"")),
    }
}

/// The operations of a body as the capability takes them. `base` is what the first was made for, where it
/// does not say.
pub(super) fn read(body: Value, base: Option<Version>) -> Result<Map, Fault> {
    let mut fields = match body {
        Value::List(list) => [("operations".to_owned(), Value::List(list))].into_iter().collect(),
        other => super::documents::object(other)?,
    };
    let Some(Value::List(mut list)) = fields.remove("operations") else {
        start(&mut fields, base)?;
        return Ok(fields);
    };
    for name in SHARED {
        share(name, &mut fields, &mut list)?;
    }
    if let Some(Value::Map(first)) = list.first_mut() {
        start(first, base)?;
    }
    fields.push("operations", list);
    Ok(fields)
}

/// Says of the first operation what it was made for.
fn start(first: &mut Map, base: Option<Version>) -> Result<(), Fault> {
    let Some(base) = base else { return Ok(()) };
    match first.get("base_version") {
        None => {}
        Some(Value::Null) => drop(first.remove("base_version")),
        // What is no version is rejected later, by name.
        Some(own) if version(own).is_none_or(|own| own == base) => return Ok(()),
        Some(_) => {
            let sentence = format!("If-Match says {base}, and base_version something else");
            return Err(Fault::argument("If-Match", sentence));
        }
    }
    first.push("base_version", base.to_string());
    Ok(())
}

fn version(value: &Value) -> Option<Version> {
    match value {
        Value::Text(text) => text.parse().ok(),
        Value::Int(number) => u64::try_from(*number).ok().map(Version),
        _ => None,
    }
}

/// What single operations say is said of all, which is how it is kept.
fn share(name: &str, fields: &mut Map, list: &mut [Value]) -> Result<(), Fault> {
    let mut shared = fields.get(name).filter(|own| **own != Value::Null).cloned();
    let is_said = shared.is_some();
    for operation in list {
        let Value::Map(operation) = operation else { continue };
        let own = operation.remove(name).filter(|own| *own != Value::Null);
        match (&shared, own) {
            (_, None) => {}
            (None, own) => shared = own,
            (Some(shared), Some(own)) if *shared == own => {}
            (Some(_), Some(_)) => {
                let sentence =
                    format!("operations of one request have one {name}: send others apart");
                return Err(Fault::new(ErrorKind::InvalidPayload, sentence).of(name));
            }
        }
    }
    if let Some(shared) = shared.filter(|_| !is_said) {
        fields.remove(name);
        fields.push(name, shared);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::from_json(json.as_bytes()).unwrap()
    }

    fn read_as(body: &str, base: Option<u64>) -> Result<String, Fault> {
        let fields = read(value(body), base.map(Version))?;
        Ok(String::from_utf8(Value::Map(fields).to_json().unwrap()).unwrap())
    }

    #[test]
    fn a_bare_list_is_a_batch() {
        let told = read_as(r#"[{"op_id":"1","author":"a"},{"op_id":"2","author":"a"}]"#, None);
        assert_eq!(told.unwrap(), r#"{"author":"a","operations":[{"op_id":"1"},{"op_id":"2"}]}"#);
        let told = read_as(r#"{"author":null,"operations":[{"op_id":"1","author":"a"}]}"#, None);
        assert_eq!(told.unwrap(), r#"{"author":"a","operations":[{"op_id":"1"}]}"#);
        let two = r#"[{"op_id":"1","author":"a"},{"op_id":"2","author":"b"}]"#;
        assert!(read_as(two, None).is_err());
    }

    #[test]
    fn if_match_is_what_the_first_operation_was_made_for() {
        let list = r#"[{"op_id":"1"},{"op_id":"2"}]"#;
        let told = read_as(list, Some(7)).unwrap();
        let first = r#"{"op_id":"1","base_version":"W/\"7\""}"#;
        assert_eq!(told, format!(r#"{{"operations":[{first},{{"op_id":"2"}}]}}"#));
        assert_eq!(read_as(r#"{"op_id":"1","base_version":null}"#, Some(7)).unwrap(), first);
        for same in ["7", "\"7\"", r#""W/\"7\"""#] {
            let body = format!(r#"{{"op_id":"1","base_version":{same}}}"#);
            assert_eq!(read_as(&body, Some(7)).unwrap(), body);
            assert!(read_as(&body, Some(8)).is_err(), "{same}");
        }
        // The later ones are nobody's business, and what is no version is told of the operation.
        for other in [r#"[{},{"base_version":9}]"#, r#"{"base_version":7.5}"#] {
            assert!(read_as(other, Some(7)).is_ok(), "{other}");
        }
    }

    #[test]
    fn if_match_is_one_version() {
        let told = |lines: &[&str]| {
            let each = |line: &&str| (header::IF_MATCH, line.parse().unwrap());
            base(&lines.iter().map(each).collect())
        };
        assert_eq!(told(&[]).unwrap(), None);
        for tag in ["W/\"17\"", "\"17\"", " 17 "] {
            assert_eq!(told(&[tag]).unwrap(), Some(Version(17)), "{tag}");
        }
        for wrong in
            [&["*"][..], &[""], &["W/\"1\", W/\"2\""], &["W/\"1\"", "W/\"1\""], &["W/\"x\""]]
        {
            assert!(told(wrong).is_err(), "{wrong:?}");
        }
    }
}
