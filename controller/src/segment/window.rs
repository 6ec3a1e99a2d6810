//! How long a workload is learned, as people write it into a Segment: a number and a unit.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// What the API server takes for one. Five digits: more days than a calendar has years for.
pub(super) const PATTERN: &str = "^[1-9][0-9]{0,4}[smhd]$";

/// A learning window: whole seconds, minutes, hours or days, at least one. Written back as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LearningWindow {
    number: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
        }
    }

    const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        }
    }
}

impl LearningWindow {
    /// How long it is.
    pub fn length(self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.number) * i64::from(self.unit.seconds()))
    }
}

/// Not a learning window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no learning window: write a number up to 99999 and s, m, h or d, for example 90s, 15m, 24h, 7d")]
pub struct NotAWindow(String);

impl FromStr for LearningWindow {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        let parsed = Unit::ALL.into_iter().find_map(|unit| {
            let digits = text.strip_suffix(unit.letter())?;
            let is_plain = (1..=5).contains(&digits.len())
                && !digits.starts_with('0')
                && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| is_plain)?;
            Some(Self { number, unit })
        });
        parsed.ok_or_else(|| NotAWindow(text.to_owned()))
    }
}

impl TryFrom<String> for LearningWindow {
    type Error = NotAWindow;

    fn try_from(text: String) -> Result<Self, NotAWindow> {
        text.parse()
    }
}

impl fmt::Display for LearningWindow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.number, self.unit.letter())
    }
}

impl From<LearningWindow> for String {
    fn from(window: LearningWindow) -> Self {
        window.to_string()
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
