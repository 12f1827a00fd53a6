//! Changes to the headers of a request or a response, as a rule asks for them.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection or to the framing; a rule must not touch them.
const FORBIDDEN: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What to change: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields that get exactly this value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields that get this value besides those they have.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Fields that go.
    pub remove: Vec<HeaderName>,
}

impl Edits {
    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// Whether a field belongs to the connection or the framing.
#[must_use]
pub fn is_of_the_connection(name: &str) -> bool {
    FORBIDDEN.iter().any(|forbidden| forbidden.as_str().eq_ignore_ascii_case(name))
}

/// Reads a field name that a rule may change.
///
/// # Errors
/// Says what is wrong with the name.
pub fn parse_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text).map_err(|_| {
        format!("`{text}` is no header name: letters, digits and -, such as X-Team")
    })?;
    if is_of_the_connection(text) {
        return Err(format!("`{text}` belongs to the connection and cannot be changed"));
    }
    Ok(name)
}

/// Reads a field value.
///
/// # Errors
/// Says what is wrong with the value.
pub fn parse_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text)
        .map_err(|_| "a header value has no line breaks or control characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_comes_first_then_set_then_add() {
        let edits = Edits {
            set: vec![(header::SERVER, HeaderValue::from_static("gibbon"))],
            add: vec![(header::VARY, HeaderValue::from_static("accept"))],
            remove: vec![header::SERVER, header::AGE],
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::AGE, HeaderValue::from_static("1"));
        headers.insert(header::VARY, HeaderValue::from_static("cookie"));
        edits.apply(&mut headers);
        assert_eq!(headers[header::SERVER], "gibbon");
        assert!(!headers.contains_key(header::AGE));
        assert_eq!(headers.get_all(header::VARY).iter().count(), 2);
    }

    #[test]
    fn framing_and_connection_fields_are_refused() {
        for name in ["Host", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive"] {
            assert!(parse_name(name).unwrap_err().contains("cannot be changed"), "{name}");
        }
        assert!(parse_name("bad name").unwrap_err().contains("X-Team"));
        assert!(parse_value("a\r\nb").is_err());
    }
}
