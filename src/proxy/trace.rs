//! What a request is called: its `X-Request-Id`, and its place in a trace (W3C Trace Context).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::fields::Fields;
use super::headers;

/// The longest id that is taken from a client.
const LONGEST: usize = 128;

/// The name of a request, the same for client, members and log.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static(headers::X_REQUEST_ID);
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Which requests without a usable `traceparent` get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewTraces {
    /// None.
    #[default]
    None,
    /// All; members are asked to record what they do.
    Sampled,
    /// All; members are told that nobody records them.
    Unsampled,
}

/// Sees to it that a request has a `traceparent` if it is to have one; takes its id out of its head, or
/// makes one up, and returns it.
///
/// The id of a client is kept, whoever that is, if nothing can be forged with its characters: it
/// names a request, and proves nothing. Another one is replaced.
pub fn name(
    headers: &mut HeaderMap,
    fields: Fields,
    new: NewTraces,
    rng: &mut fastrand::Rng,
) -> HeaderValue {
    let given = if fields.has(Fields::ID) { given(headers) } else { None };
    let (id, made) = match given {
        Some(id) => (id.clone(), None),
        None => {
            let number = rng.u128(..);
            (request_id(number), Some(number))
        }
    };
    if fields.has(Fields::ID) {
        headers.remove(&X_REQUEST_ID);
    }
    if new != NewTraces::None && trace_id(headers).is_none() {
        // A request that got its id here has the same one in its trace.
        begin_trace(headers, new, made.unwrap_or_else(|| rng.u128(..)), rng.u64(..));
    }
    id
}

/// The client's own id, if there is just one and it will do.
fn given(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(&X_REQUEST_ID).iter();
    let id = ids.next()?;
    (ids.next().is_none() && is_id(id.as_bytes())).then_some(id)
}

/// Whether a text can be an id: characters that mean nothing in logs, URLs' paths and shells'
/// arguments, among them all of UUIDs and base64.
fn is_id(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:".contains(byte);
    (1..=LONGEST).contains(&text.len()) && text.iter().all(fits)
}

fn request_id(number: u128) -> HeaderValue {
    // One allocation, which all copies share.
    let text = Bytes::from_owner(hex(number));
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("-"))
}

fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    text
}

/// Replaces what there is of a trace by the beginning of a new one.
fn begin_trace(headers: &mut HeaderMap, new: NewTraces, trace: u128, span: u64) {
    let flags = u8::from(new == NewTraces::Sampled);
    // All zeros are no id.
    let (trace, span) = (trace.max(1), span.max(1));
    headers.remove(&TRACESTATE);
    match HeaderValue::try_from(format!("00-{trace:032x}-{span:016x}-{flags:02x}")) {
        Ok(value) => headers.insert(&TRACEPARENT, value),
        Err(_) => headers.remove(&TRACEPARENT),
    };
}

/// The id of the trace that a request belongs to, if it says so as it should (W3C Trace Context,
/// section 3.2).
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let mut parts = parent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    let sized = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let known = version == "00" && parts.next().is_none();
    let later = version != "00" && version != "ff";
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    (sized && (known || later) && !zero(trace) && !zero(span)).then_some(trace)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    fn named(fields: &[(&'static str, &str)], new: NewTraces) -> (String, HeaderMap) {
        let mut headers = headers(fields);
        let fields = Fields::of(&headers);
        let id = name(&mut headers, fields, new, &mut fastrand::Rng::with_seed(1));
        assert!(!headers.contains_key(&X_REQUEST_ID));
        (id.to_str().unwrap().to_owned(), headers)
    }

    #[test]
    fn a_usable_id_is_kept() {
        for id in
            ["a", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "aGk/+w==", "x:1.2~3_4", &"a".repeat(128)]
        {
            assert_eq!(named(&[("x-request-id", id)], NewTraces::None).0, id);
        }
    }

    #[test]
    fn another_is_replaced_by_one_that_was_not_there_before() {
        for id in ["", "a b", "a\"b", "a\tb", "\u{e9}", "a,b", "<a>", &"a".repeat(129)] {
            let (made, _) = named(&[("x-request-id", id)], NewTraces::None);
            assert!(is_hex(&made, 32), "{id}: {made}");
        }
        let twice = [("x-request-id", "a"), ("x-request-id", "b")];
        assert!(is_hex(&named(&twice, NewTraces::None).0, 32));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut made = || name(&mut HeaderMap::new(), Fields::default(), NewTraces::None, &mut rng);
        assert_ne!(made(), made());
    }

    #[test]
    fn a_trace_is_begun_only_where_that_is_asked_for() {
        assert!(!named(&[], NewTraces::None).1.contains_key(&TRACEPARENT));
        for (new, flags) in [(NewTraces::Sampled, "01"), (NewTraces::Unsampled, "00")] {
            let (id, headers) = named(&[("tracestate", "a=b")], new);
            assert_eq!(trace_id(&headers), Some(&*id));
            let parent = headers[&TRACEPARENT].to_str().unwrap();
            assert!(parent.starts_with("00-") && parent.ends_with(flags), "{parent}");
            assert!(!headers.contains_key(&TRACESTATE));
        }
        let (id, headers) = named(&[("x-request-id", "mine")], NewTraces::Sampled);
        assert!(id == "mine" && trace_id(&headers).is_some());
    }

    #[test]
    fn a_trace_that_goes_on_is_passed_on_as_it_is() {
        for new in [NewTraces::None, NewTraces::Sampled] {
            let (_, headers) = named(&[("traceparent", PARENT), ("tracestate", "a=b")], new);
            assert_eq!(headers[&TRACEPARENT], PARENT);
            assert_eq!(headers[&TRACESTATE], "a=b");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken_for_one() {
        let id = |parent: &str| trace_id(&headers(&[("traceparent", parent)])).map(str::to_owned);
        assert_eq!(id(PARENT).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(id(&PARENT.replace("00-0", "cc-0")).is_some());
        assert!(id(&format!("{}-more", PARENT.replace("00-0", "cc-0"))).is_some());
        for wrong in [
            "",
            "00",
            &PARENT.replace("00-0", "ff-0"),
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
        let twice = headers(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        assert_eq!(trace_id(&twice), None);
    }
}
