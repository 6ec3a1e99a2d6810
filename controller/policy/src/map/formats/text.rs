//! Names as texts.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that are not seen, or that turn what stands beside them around: written out, so that nobody is deceived.
fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text in one line, of characters that are seen: others are written out, so that a name does nothing to whoever looks at it.
pub fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        if deceives(character) {
            // Writing to a string cannot fail.
            let _written = write!(seen, "\\u{{{:x}}}", u32::from(character));
        } else {
            seen.push(character);
        }
    }
    seen
}

/// A document of JSON of characters that are seen: it reads back as the same.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Nearly every document is ASCII.
    if json.is_ascii() && !json.contains('\u{7f}') {
        return Cow::Borrowed(json);
    }
    let mut seen = String::with_capacity(json.len());
    for character in json.chars() {
        // Of those below a space JSON holds only what stands between its parts.
        if character < ' ' || !deceives(character) {
            seen.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _written = write!(seen, "\\u{unit:04x}");
        }
    }
    Cow::Owned(seen)
}

/// The same as content or attribute of XML and HTML.
pub(super) fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The beginning of a text, where there is room for so many characters.
pub(super) fn beginning(text: &str, room: usize) -> String {
    let text = visible(text);
    if text.chars().count() <= room {
        return text;
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
