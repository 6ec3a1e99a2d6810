//! YAML as Kubernetes reads it, as JSON.

use serde::de::Error as _;
use serde_json::{Map, Number, Value};
use serde_yaml::{Error, Value as Yaml};

/// Brackets that may be open at once in YAML. The parser refuses objects deeper than 128, but its time grows with the square of
/// what is open before it gets there; text in a block of a real object has a few open brackets at most.
const OPEN: usize = 1000;

/// Reads one document.
pub(super) fn document(text: &str) -> Result<Value, Error> {
    let mut open: usize = 0;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN {
            return Err(Error::custom("it is nested too deeply"));
        }
    }
    let mut value: Yaml = serde_yaml::from_str(text)?;
    value.apply_merge()?;
    json(value)
}

fn json(value: Yaml) -> Result<Value, Error> {
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => {
            let integer = number
                .as_i64()
                .map(Number::from)
                .or_else(|| number.as_u64().map(Number::from));
            integer
                .or_else(|| Number::from_f64(number.as_f64()?))
                .map_or(Value::Null, Value::Number)
        }
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(pairs) => {
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| Ok((self::key(key)?, json(value)?)));
            Value::Object(pairs.collect::<Result<Map<_, _>, Error>>()?)
        }
        Yaml::Tagged(tagged) => return Err(Error::custom(format_args!("it has the tag {}", tagged.tag))),
    })
}

/// In JSON every key is text: numbers become what they look like.
fn key(key: Yaml) -> Result<String, Error> {
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(value) => Ok(value.to_string()),
        Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => {
            Err(Error::custom("it has a key that is not text"))
        }
    }
}
