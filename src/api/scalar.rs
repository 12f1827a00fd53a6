//! Texts with a meaning: durations, numbers of bytes, ports; how they are read and written.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema::text;

/// Go's and the Gateway API's form of durations; four parts bound the value.
pub(super) const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Whole numbers of bytes with Kubernetes' suffixes; no more digits than 64 bits hold.
const BYTES: &str = "^([0-9]{1,15}|[0-9]{1,9}(k|M|G|Ki|Mi|Gi))$";
/// A name that is not mistaken for a number: `"80"` in quotes is meant as one.
const PORT_NAME: &str = "^([0-9][-0-9]*)?[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A span of time, written like `500ms`, `2s` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IntOrString", into = "String")]
pub struct Duration(std::time::Duration);

/// A number of bytes, written like `1048576`, `500k` or `10Mi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IntOrString", into = "String")]
pub struct Bytes(u64);

/// The number or the name of a Service's port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, try_from = "IntOrString")]
pub enum Port {
    /// From 1 to 65535.
    Number(u16),
    /// A DNS label with a letter in it.
    Name(String),
}

/// A text that is no [`Duration`], [`Bytes`] or [`Port`], and what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct Malformed {
    text: String,
    expected: &'static str,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
enum IntOrString {
    Int(i64),
    String(String),
}

impl Duration {
    const EXPECTED: &str = "a duration such as 500ms, 2s or 1m30s";

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// The span itself.
    #[must_use]
    pub const fn get(&self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let millis = millis(text, 4).ok_or_else(|| malformed(text, Self::EXPECTED))?;
        Ok(Self::from_millis(millis))
    }
}

impl TryFrom<IntOrString> for Duration {
    type Error = Malformed;

    fn try_from(value: IntOrString) -> Result<Self, Malformed> {
        value.to_string().parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, millis) = (self.0.as_secs(), u64::from(self.0.subsec_millis()));
        if secs == 0 && millis == 0 {
            return f.write_str("0s");
        }
        let parts = [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s"), (millis, "ms")];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl Bytes {
    const EXPECTED: &str = "a whole number of bytes such as 1048576, 500k or 10Mi";

    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number.
    #[must_use]
    pub const fn get(&self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bytes = split_number(text, 15).and_then(|(number, suffix)| {
            let fits = suffix.is_empty() || number < 1_000_000_000;
            fits.then_some(number * bytes_in(suffix)?)
        });
        bytes.map(Self).ok_or_else(|| malformed(text, Self::EXPECTED))
    }
}

impl TryFrom<IntOrString> for Bytes {
    type Error = Malformed;

    fn try_from(value: IntOrString) -> Result<Self, Malformed> {
        value.to_string().parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            |suffix: &&str| bytes_in(suffix).is_some_and(|unit| self.0.is_multiple_of(unit));
        let largest = ["Gi", "G", "Mi", "M", "Ki", "k"].into_iter().find(exact);
        let suffix = largest.filter(|_| self.0 > 0).unwrap_or_default();
        write!(f, "{}{suffix}", self.0 / bytes_in(suffix).unwrap_or(1))
    }
}

impl TryFrom<IntOrString> for Port {
    type Error = Malformed;

    fn try_from(value: IntOrString) -> Result<Self, Malformed> {
        match value {
            IntOrString::Int(number) => match u16::try_from(number) {
                Ok(number) if number > 0 => Ok(Self::Number(number)),
                _ => Err(malformed(&number.to_string(), "a port from 1 to 65535")),
            },
            IntOrString::String(name) if is_port_name(&name) => Ok(Self::Name(name)),
            IntOrString::String(name) => Err(malformed(
                &name,
                "the name of a port, such as http; write numbers without quotes",
            )),
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The pattern is for tools that do not run CEL; the rule is for its message.
        let rule = format!("self.matches('{DURATION}')");
        let message = format!("must be {}", Self::EXPECTED);
        let mut schema = text(24, &[(&rule, &message)]);
        schema.insert("pattern".into(), DURATION.into());
        schema
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": BYTES, "maxLength": 15, "minimum": 0, "maximum": 999_999_999_999_999_i64
        })
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    // No CEL: its cost estimate takes a text of this kind for 3 MiB long, whatever maxLength says.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": PORT_NAME, "maxLength": 63, "minimum": 1, "maximum": 65535
        })
    }
}

fn malformed(text: &str, expected: &'static str) -> Malformed {
    Malformed { text: text.to_owned(), expected }
}

/// The leading digits, at most `max`, as a number, and the rest.
fn split_number(text: &str, max: usize) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number = digits.parse().ok().filter(|_| digits.len() <= max)?;
    Some((number, rest))
}

/// The milliseconds of a text of at most so many parts.
fn millis(text: &str, parts: usize) -> Option<u64> {
    let (number, rest) = split_number(text, 5)?;
    let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let first = number * millis_in(unit)?;
    match (rest, parts) {
        ("", _) => Some(first),
        (_, 1) => None,
        _ => Some(first + millis(rest, parts - 1)?),
    }
}

fn millis_in(unit: &str) -> Option<u64> {
    match unit {
        "h" => Some(3_600_000),
        "m" => Some(60_000),
        "s" => Some(1000),
        "ms" => Some(1),
        _ => None,
    }
}

fn bytes_in(suffix: &str) -> Option<u64> {
    match suffix {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        _ => None,
    }
}

fn is_port_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(known)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn duration(text: &str) -> Result<Duration, Malformed> {
        text.parse()
    }

    fn port(value: serde_json::Value) -> Result<Port, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_sums_of_their_parts() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h1m1s1ms"), Ok(Duration::from_millis(3_661_001)));
        assert_eq!(duration("0s"), Ok(Duration::from_secs(0)));
    }

    #[test]
    fn what_is_no_duration_says_what_would_be_one() {
        for text in ["", "5", "s", "2 s", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", "1s5"] {
            let message = duration(text).unwrap_err().to_string();
            assert_eq!(message, format!("`{text}` is not a duration such as 500ms, 2s or 1m30s"));
        }
    }

    #[test]
    fn a_number_is_no_duration_for_it_has_no_unit() {
        let error = serde_json::from_value::<Duration>(json!(5)).unwrap_err().to_string();
        assert_eq!(error, "`5` is not a duration such as 500ms, 2s or 1m30s");
    }

    #[test]
    fn durations_are_written_so_that_they_read_the_same() {
        for text in ["0s", "500ms", "2s", "1m30s", "1h", "10h5ms"] {
            assert_eq!(duration(text).unwrap().to_string(), text);
        }
        assert_eq!(duration("90s").unwrap().to_string(), "1m30s");
    }

    #[test]
    fn bytes_are_numbers_or_have_a_suffix() {
        let bytes = |value| serde_json::from_value::<Bytes>(value).unwrap().get();
        assert_eq!(bytes(json!(1_048_576)), 1 << 20);
        assert_eq!(bytes(json!("10Mi")), 10 << 20);
        assert_eq!(bytes(json!("500k")), 500_000);
        for value in [json!(-1), json!("1.5Gi"), json!("10MB"), json!("Mi"), json!("1000000000Gi")]
        {
            let error = serde_json::from_value::<Bytes>(value).unwrap_err().to_string();
            assert!(error.contains("a whole number of bytes such as 1048576"), "{error}");
        }
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_is_exact() {
        let written = |bytes| Bytes::new(bytes).to_string();
        assert_eq!([written(0), written(1000), written(1234)], ["0", "1k", "1234"]);
        assert_eq!([written(10 << 20), written(3 << 10)], ["10Mi", "3Ki"]);
        assert_eq!(written(999_999_999_000_000_000), "999999999G");
    }

    #[test]
    fn ports_are_numbers_or_names_and_never_numbers_in_quotes() {
        assert_eq!(port(json!(80)), Ok(Port::Number(80)));
        assert_eq!(port(json!("8-http")), Ok(Port::Name("8-http".into())));
        assert!(port(json!("80")).unwrap_err().contains("write numbers without quotes"));
        for value in [json!(0), json!(70_000), json!(-1)] {
            assert!(port(value).unwrap_err().contains("a port from 1 to 65535"));
        }
        for name in ["", "Http", "-a", "a-", "a_b"] {
            assert!(port(json!(name)).is_err(), "{name}");
        }
    }
}
