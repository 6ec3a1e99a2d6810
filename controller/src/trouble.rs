//! What an API server or the way to it does wrong, in words for a person.

use std::error::Error;
use std::fmt;

/// A failed request. Its text is one sentence without the request's inner workings.
#[derive(Debug)]
pub struct Trouble(Box<kube::Error>);

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self(Box::new(error))
    }
}

impl Trouble {
    /// Whether the API server answered: it is there, and said no.
    pub const fn is_answer(&self) -> bool {
        matches!(*self.0, kube::Error::Api(_))
    }

    /// The HTTP status of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match &*self.0 {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            kube::Error::Api(status) if status.message.is_empty() => {
                write!(f, "the API server answered {} {}", status.code, status.reason)
            }
            kube::Error::Api(status) => write!(f, "the API server answered {}: {}", status.code, status.message),
            other => {
                // The outermost says which layer of the client it was; the innermost says what happened.
                let mut cause: &dyn Error = other;
                while let Some(next) = cause.source() {
                    cause = next;
                }
                fmt::Display::fmt(cause, f)
            }
        }
    }
}

impl Error for Trouble {}

/// An error with everything that caused it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
