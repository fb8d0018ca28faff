//! Why a call failed.

use std::fmt;

use kps_proto::{Error, ErrorKind};

/// A call's result.
pub type Outcome = Result<super::Value, Failure>;

/// Why a call failed: a stable code, a sentence, and whether trying again makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What programs match on.
    pub kind: ErrorKind,
    /// What happened and what to do.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retry: bool,
    /// The field of the payload that is wrong.
    pub field: Option<String>,
    /// What a provider's own code raised.
    pub raised: Option<Box<Raised>>,
}

/// An exception of a provider's own code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Its type's name.
    pub kind: String,
    /// Where, if the provider debugs.
    pub traceback: Option<String>,
}

impl Failure {
    /// A failure that will be the same the next time.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), retry: false, field: None, raised: None }
    }

    /// `invalid_payload` because of this field.
    #[cold]
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = Some(field.into());
        Failure { field, ..Failure::new(ErrorKind::InvalidPayload, message) }
    }

    /// One that may be gone the next time.
    pub fn retryable(self) -> Self {
        Failure { retry: true, ..self }
    }

    /// The same as an error of kps.
    pub fn into_error(self) -> Error {
        Error::new(self.kind, self.message)
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Failure::new(error.kind(), error.message());
        match error.kind() {
            ErrorKind::NotConnected | ErrorKind::Disconnected => failure.retryable(),
            _ => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}
