//! What travels between who calls and who answers: the same in every language.

use std::{sync::Arc, time::Duration};

use kps_proto::ErrorKind;

use super::{Failure, Fields, Map, Outcome, Raised, Value};

/// How to call.
#[derive(Clone, Debug)]
pub struct DispatchOptions {
    /// How long an answer is awaited, over all attempts. 5 s.
    pub timeout: Duration,
    /// How often a call is tried again that failed with an error marked for that. 0.
    pub retry: u32,
    /// Where it is to be done.
    pub target: CallTarget,
    /// Calls of one operation with the same key are done once: later ones get the first one's answer.
    pub idempotency_key: Option<String>,
    /// Told how far a long operation is.
    pub progress: Option<super::Callback>,
}

impl Default for DispatchOptions {
    fn default() -> Self {
        DispatchOptions {
            timeout: Duration::from_secs(5),
            retry: 0,
            target: CallTarget::Nearest,
            idempotency_key: None,
            progress: None,
        }
    }
}

/// Where a call is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CallTarget {
    /// In this process if it has the capability, else by any client that offers it.
    #[default]
    Nearest,
    /// In this process.
    Local,
    /// By the server's own capabilities.
    Server,
    /// By any client that offers it, this one too if it does.
    Any,
    /// By the client with this id.
    Client(String),
}

impl CallTarget {
    /// From how every language spells it: `local`, `server`, `any`, or a client's id; `client:ID` is an id
    /// whatever it is.
    pub fn parse(text: &str) -> CallTarget {
        match text {
            "local" => CallTarget::Local,
            "server" => CallTarget::Server,
            "any" => CallTarget::Any,
            id => CallTarget::Client(id.strip_prefix("client:").unwrap_or(id).to_owned()),
        }
    }
}

/// A call on its way to another process:
/// `{id, action, payload, options: {timeout_ms, attempt, idempotency_key, progress}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The call's id.
    pub id: Arc<str>,
    /// `capability.operation`.
    pub action: String,
    /// What the operation is given.
    pub payload: Value,
    /// How much time is left.
    pub timeout: Duration,
    /// 1, 2, 3, …
    pub attempt: u32,
    /// As in [`DispatchOptions`].
    pub idempotency_key: Option<String>,
    /// The topic on which its caller hears of its progress.
    pub progress: Option<String>,
}

impl Request {
    /// The envelope.
    pub fn into_value(self) -> Value {
        let mut options = Map::default();
        options.push("timeout_ms", self.timeout.as_millis() as u64);
        options.push("attempt", self.attempt);
        if let Some(key) = self.idempotency_key {
            options.push("idempotency_key", key);
        }
        if let Some(topic) = self.progress {
            options.push("progress", topic);
        }
        Value::map([
            ("id", (&*self.id).into()),
            ("action", self.action.into()),
            ("payload", self.payload),
            ("options", options.into()),
        ])
    }

    /// Reads an envelope; unknown members are ignored, so that newer peers may say more.
    pub fn from_value(value: Value) -> Result<Request, Failure> {
        let mut fields = Fields::of(value)?;
        let mut options = Fields::of(fields.any("options").unwrap_or_default())?;
        let millis = options.count("timeout_ms")?.unwrap_or(5_000);
        Ok(Request {
            id: fields.text("id")?.into(),
            action: fields.text("action")?,
            payload: fields.any("payload").unwrap_or_default(),
            timeout: Duration::from_millis(millis),
            attempt: options.count("attempt")?.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            idempotency_key: options.optional_text("idempotency_key")?,
            progress: options.optional_text("progress")?,
        })
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The call's id.
    pub id: Arc<str>,
    /// What the operation answered, or why there is no answer.
    pub outcome: Outcome,
    /// From the call to its end.
    pub duration: Duration,
    /// How many attempts it took.
    pub attempts: u32,
    /// The client that answered; `None`: this process.
    pub provider: Option<Arc<str>>,
}

impl Response {
    /// The response to a call that was not made.
    pub fn refused(failure: Failure) -> Response {
        Response {
            id: "".into(),
            outcome: Err(failure),
            duration: Duration::ZERO,
            attempts: 0,
            provider: None,
        }
    }

    /// Whether the operation did what it should.
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The answer.
    ///
    /// # Errors
    /// Why there is none.
    pub fn unwrap(self) -> Outcome {
        self.outcome
    }

    /// The envelope: `{id, status, data, duration, attempts}` or `{id, status, error, duration, attempts}`;
    /// `duration` in milliseconds.
    pub fn into_value(self) -> Value {
        let mut map = Map::default();
        map.push("id", &*self.id);
        match self.outcome {
            Ok(data) => {
                map.push("status", "ok");
                map.push("data", data);
            }
            Err(failure) => {
                map.push("status", "error");
                map.push("error", failure.into_value());
            }
        }
        map.push("duration", self.duration.as_micros() as f64 / 1e3);
        map.push("attempts", self.attempts);
        if let Some(provider) = self.provider {
            map.push("provider", &*provider);
        }
        Value::Map(map)
    }

    /// What an envelope says happened.
    pub fn outcome_of(value: Value) -> Outcome {
        let mut fields = Fields::of(value)?;
        match &*fields.text("status")? {
            "ok" => Ok(fields.any("data").unwrap_or_default()),
            _ => Err(Failure::from_value(fields.value("error")?)),
        }
    }
}

impl Failure {
    /// `{code, message, retry}`, and where known `field`, `type`, `traceback`.
    pub fn into_value(self) -> Value {
        let mut map = Map::default();
        map.push("code", self.kind.code());
        map.push("message", self.message);
        map.push("retry", self.retry);
        if let Some(field) = self.field {
            map.push("field", field);
        }
        if let Some(raised) = self.raised {
            map.push("type", raised.kind);
            if let Some(traceback) = raised.traceback {
                map.push("traceback", traceback);
            }
        }
        Value::Map(map)
    }

    /// Reads it again; a code that is not known here is `internal`.
    pub fn from_value(value: Value) -> Failure {
        let text = |name: &str| match value.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let code = text("code").unwrap_or_default();
        let known = ErrorKind::ALL.iter().find(|kind| kind.code() == code);
        Failure {
            kind: known.copied().unwrap_or(ErrorKind::Internal),
            message: text("message").unwrap_or_else(|| "no reason was given".into()),
            retry: value.get("retry") == Some(&Value::Bool(true)),
            field: text("field"),
            raised: text("type")
                .map(|kind| Box::new(Raised { kind, traceback: text("traceback") })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_answers_read_as_they_were_written() {
        let request = Request {
            id: "c1".into(),
            action: "ml.embed".into(),
            payload: Value::map([("text", "hi".into())]),
            timeout: Duration::from_millis(1500),
            attempt: 2,
            idempotency_key: Some("k".into()),
            progress: Some("kps.call.kps.progress.1".into()),
        };
        let text = request.clone().into_value().to_json().unwrap();
        assert_eq!(Request::from_value(Value::from_json(&text).unwrap()).unwrap(), request);

        let failure = Failure::field("n", "n is -1").retryable();
        for outcome in [Ok(Value::from(42)), Err(failure)] {
            let duration = Duration::from_micros(1250);
            let response =
                Response { id: "c1".into(), outcome, duration, attempts: 1, provider: None };
            let value = response.clone().into_value();
            assert_eq!(value.get("duration"), Some(&Value::Float(1.25)));
            assert_eq!(Response::outcome_of(value), response.outcome);
        }
    }

    #[test]
    fn targets_are_words_or_ids() {
        assert_eq!(CallTarget::parse("any"), CallTarget::Any);
        assert_eq!(CallTarget::parse("ann"), CallTarget::Client("ann".into()));
        assert_eq!(CallTarget::parse("client:any"), CallTarget::Client("any".into()));
    }
}
