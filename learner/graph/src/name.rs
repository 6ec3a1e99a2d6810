//! DNS names, as an answer carries them and as people read them.
//!
//! Law: a name is short and has no character that means something to whoever prints it, whatever bytes it was made of.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// A DNS name: lower case, without the last dot; every byte that is not a letter, a digit, `-`, `_` or `*` as `\DDD`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a DNS name: at most 255 of a-z, 0-9, `-`, `_`, `*`, `.` and `\\`", .0.escape_debug())]
pub struct NotAName(String);

impl DnsName {
    /// As many characters as a name has bytes at most (RFC 1035, 2.3.4). One that is longer when it is written out is refused.
    pub const LONGEST: usize = 255;

    /// Names that are kept for one address: enough to tell a person, and no list that grows.
    pub const KEPT: usize = 4;

    /// The name of these labels; `None` for the root, and for what is too long.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = String::new();
        for label in labels {
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                match byte.to_ascii_lowercase() {
                    plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*') => name.push(char::from(plain)),
                    other => {
                        // Writing to a string cannot fail.
                        let _written = write!(name, "\\{other:03}");
                    }
                }
            }
        }
        Self::try_from(name).ok()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Puts a name among those of an address. Of more than are kept the first in order stay, in whatever order they came.
    pub fn keep(names: &mut BTreeSet<Self>, name: &Self) {
        if !names.contains(name) {
            names.insert(name.clone());
            if names.len() > Self::KEPT {
                names.pop_last();
            }
        }
    }
}

impl TryFrom<String> for DnsName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'.' | b'\\');
        if text.is_empty() || text.len() > Self::LONGEST || !text.bytes().all(is_plain) {
            return Err(NotAName(text));
        }
        Ok(Self(text))
    }
}

impl From<DnsName> for String {
    fn from(DnsName(text): DnsName) -> Self {
        text
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_as_people_read_them() {
        let rows: [(&[&[u8]], Option<&str>); 6] = [
            (&[b"API", b"Example", b"com"], Some("api.example.com")),
            (&[b"_sip", b"*", b"x-1"], Some("_sip.*.x-1")),
            (&[b"a\nb: \"c", b"d.e\\"], Some("a\\010b\\058\\032\\034c.d\\046e\\092")),
            (&["ü".as_bytes()], Some("\\195\\188")),
            (&[], None),
            (&[&[b'\n'; 63], &[b'\n'; 63]], None),
        ];
        for (labels, expected) in rows {
            assert_eq!(
                DnsName::from_labels(labels.iter().copied())
                    .as_ref()
                    .map(DnsName::as_str),
                expected
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_plain_name_or_none(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..10)) {
            if let Some(name) = DnsName::from_labels(labels.iter().map(Vec::as_slice)) {
                prop_assert!(name.as_str().len() <= DnsName::LONGEST);
                prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                let text = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<DnsName>(&text).unwrap(), name);
            }
        }

        #[test]
        fn which_names_stay_does_not_depend_on_their_order(names in prop::collection::vec("[a-h]", 0..12).prop_shuffle()) {
            let kept = |names: &[String]| {
                let mut kept = BTreeSet::new();
                for name in names {
                    DnsName::keep(&mut kept, &DnsName(name.clone()));
                }
                kept
            };
            let mut sorted = names.clone();
            sorted.sort();
            prop_assert!(kept(&names).len() <= DnsName::KEPT);
            prop_assert_eq!(kept(&names), kept(&sorted));
        }
    }
}
