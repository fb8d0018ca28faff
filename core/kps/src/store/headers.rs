//! Headers as one text that people can read: a line `name: value` each, escaped with backslashes.

use super::fault::{Result, corrupt};

/// `None` for no headers.
pub(super) fn write(headers: &[(String, String)]) -> Option<String> {
    let mut text = String::new();
    for (name, value) in headers {
        escape(name, true, &mut text);
        text.push_str(": ");
        escape(value, false, &mut text);
        text.push('\n');
    }
    (!headers.is_empty()).then_some(text)
}

/// The headers that [`write`] was given.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    let mut name = None;
    let mut part = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, &name) {
            ('\\', _) => match chars.next() {
                Some('n') => part.push('\n'),
                Some(char) => part.push(char),
                None => return corrupt("headers end within an escape"),
            },
            (':', None) if chars.next() == Some(' ') => name = Some(std::mem::take(&mut part)),
            ('\n', Some(_)) => {
                headers.extend(name.take().map(|name| (name, std::mem::take(&mut part))));
            }
            (':' | '\n', None) => return corrupt("a line of headers is not `name: value`"),
            (char, _) => part.push(char),
        }
    }
    if name.is_some() || !part.is_empty() {
        return corrupt("headers do not end with a line's end");
    }
    Ok(headers)
}

/// One entry of a list, as a line.
pub(super) fn line(entry: &str) -> String {
    let mut text = String::with_capacity(entry.len() + 1);
    escape(entry, false, &mut text);
    text.push('\n');
    text
}

/// The entries that [`line`] was given, one after the other.
pub(super) fn lines(text: &str) -> Result<Vec<String>> {
    let Some(text) = text.strip_suffix('\n') else {
        return if text.is_empty() {
            Ok(Vec::new())
        } else {
            corrupt("a list does not end with a line's end")
        };
    };
    let mut entries = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '\n' => {
                entries.push(String::new());
                continue;
            }
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(char) => char,
                None => return corrupt("a list ends within an escape"),
            },
            char => char,
        };
        if let Some(entry) = entries.last_mut() {
            entry.push(char);
        }
    }
    Ok(entries)
}

fn escape(part: &str, is_name: bool, text: &mut String) {
    for char in part.chars() {
        match char {
            '\n' => text.push_str("\\n"),
            '\\' => text.push_str("\\\\"),
            ':' if is_name => text.push_str("\\:"),
            char => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_lines_for_people() {
        let headers = [("traceparent", "00-1-2-01"), ("a:b", "c: d\ne\\")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = write(&headers).unwrap();
        assert_eq!(text, "traceparent: 00-1-2-01\na\\:b: c: d\\ne\\\\\n");
        assert_eq!(parse(&text).unwrap(), headers);
        assert_eq!(write(&[]), None);
    }

    #[test]
    fn what_was_never_written_is_refused() {
        for text in ["a", "a: b", "a\nb: c\n", "a:b\n", "a: b\\"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_list_comes_back(list: Vec<String>) {
            let text: String = list.iter().map(|entry| line(entry)).collect();
            prop_assert_eq!(lines(&text).unwrap(), list);
        }

        #[test]
        fn any_headers_come_back(headers: Vec<(String, String)>) {
            let text = write(&headers).unwrap_or_default();
            prop_assert_eq!(parse(&text).unwrap(), headers);
        }
    }
}
