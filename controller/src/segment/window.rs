//! How long a workload is learned, as people write it into a Segment: a number and a unit.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// What the API server takes for one. Five digits: more days than a calendar has years for.
pub(super) const PATTERN: &str = "^[1-9][0-9]{0,4}[smhd]$";

/// A learning window: whole seconds, minutes, hours or days, at least one. Written back as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LearningWindow {
    text: String,
    length: SignedDuration,
}

impl LearningWindow {
    /// How long it is.
    pub const fn length(&self) -> SignedDuration {
        self.length
    }
}

/// Not a learning window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no learning window: write a number up to 99999 and s, m, h or d, for example 90s, 15m, 24h, 7d")]
pub struct NotAWindow(String);

impl TryFrom<String> for LearningWindow {
    type Error = NotAWindow;

    fn try_from(text: String) -> Result<Self, NotAWindow> {
        // Arguments take more than a Segment does.
        let is_plain = text.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|number| {
            (1..=5).contains(&number.len())
                && !number.starts_with('0')
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let length = humantime::parse_duration(&text).ok().filter(|_| is_plain);
        match length.and_then(|length| SignedDuration::try_from(length).ok()) {
            Some(length) => Ok(Self { text, length }),
            None => Err(NotAWindow(text)),
        }
    }
}

impl FromStr for LearningWindow {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for LearningWindow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl From<LearningWindow> for String {
    fn from(window: LearningWindow) -> Self {
        window.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_written_back() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("7d", 604_800),
            ("99999d", 8_639_913_600),
        ] {
            let window: LearningWindow = text.parse().unwrap();
            assert_eq!(window.length(), SignedDuration::from_secs(seconds), "{text}");
            assert_eq!(window.to_string(), text);
        }
    }

    #[test]
    fn what_the_pattern_refuses_is_refused() {
        for text in [
            "", "s", "0s", "07d", "+7d", "-1d", "1.5h", "7", "7 d", "7D", "1w", "1h30m", "100000s", "٧d",
        ] {
            assert!(text.parse::<LearningWindow>().is_err(), "{text}");
        }
    }
}
