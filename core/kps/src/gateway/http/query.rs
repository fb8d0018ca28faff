//! What a request says behind its `?`.

use std::{str::FromStr, time::Duration};

use super::Fault;

/// The longest time that a request may ask for.
const MAX_SECONDS: f64 = 3600.0;

/// Names and values; each is to be taken, and what is left is not understood.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// What was encoded is no UTF-8.
#[derive(Debug)]
pub(super) struct NotText;

impl Query {
    pub(super) fn parse(text: &str) -> Result<Query, Fault> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Who comes was looked at before.
            if name == "token" {
                continue;
            }
            let read = |text| {
                decode(text, true).map_err(|NotText| {
                    Fault::argument(name, "the query is not UTF-8, percent-encoded")
                })
            };
            pairs.push((read(name)?, read(value)?));
        }
        Ok(Query(pairs))
    }

    /// The value of this name; it may come once.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let mut all = self.all(name);
        match all.len() {
            0 | 1 => Ok(all.pop()),
            _ => Err(Fault::argument(name, format!("{name} may come once"))),
        }
    }

    /// All values of this name.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(its, _)| its == name).map(|(_, value)| value).collect()
    }

    /// A number, or whatever else is written as text.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = |_| Fault::argument(name, format!("{name} is {text:?}; it is {what}"));
        text.parse().map(Some).map_err(wrong)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// Seconds, above 0 and at most an hour.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Fault> {
        let what = "seconds, above 0 and at most 3600";
        let Some(seconds) = self.parsed::<f64>(name, what)? else { return Ok(None) };
        match seconds > 0.0 && seconds <= MAX_SECONDS {
            true => Ok(Some(Duration::from_secs_f64(seconds))),
            false => Err(Fault::argument(name, format!("{name} is {seconds}; it is {what}"))),
        }
    }

    /// Nothing else was said.
    pub(super) fn done(&self) -> Result<(), Fault> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Fault::argument(name, format!("the parameter {name:?} is not known here")))
            }
        }
    }
}

/// Percent-decodes; `plus`: `+` stands for a blank, as in forms.
pub(super) fn decode(text: &str, plus: bool) -> Result<String, NotText> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else { return Err(NotText) };
                bytes.push(high << 4 | low);
                rest = tail;
            }
            (b'%', _) => return Err(NotText),
            (b'+', _) if plus => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_not_understood() {
        let mut query = Query::parse("topic=a.%3E&topic=b&timeout=1.5&token=x+y&&").unwrap();
        assert_eq!(query.all("topic"), ["a.>", "b"]);
        assert!(query.done().is_err());
        assert_eq!(query.seconds("timeout").unwrap(), Some(Duration::from_millis(1500)));
        assert!(query.done().is_ok());
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in ["t=0", "t=-1", "t=nan", "t=inf", "t=4000", "t=x", "t=", "t=1&t=2"] {
            assert!(Query::parse(text).unwrap().seconds("t").is_err(), "{text}");
        }
        assert!(Query::parse("f=yes").unwrap().flag("f").is_err());
        for text in ["a=%", "a=%f", "a=%ff", "a=%zz"] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }
}
