//! gRPC over HTTP/2: which messages are, how long the client waits, and what a status says
//! (`doc/PROTOCOL-HTTP2.md` of github.com/grpc/grpc). gRPC-Web is refused as gRPC is; its answers have
//! their status at the end of the body, which is not looked into.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{DownloadError, UploadError};
use super::error::Error;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How the type of gRPC's messages begins; what follows says how they are encoded.
const TYPE: &[u8] = b"application/grpc";

/// The statuses that Gibbon gives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The client has ended the call.
    Cancelled = 1,
    /// Nobody knows.
    Unknown = 2,
    /// The time that the client, or the rule, gives the call is over.
    DeadlineExceeded = 4,
    /// The client may not.
    PermissionDenied = 7,
    /// It is more than is allowed.
    ResourceExhausted = 8,
    /// There is no such thing.
    Unimplemented = 12,
    /// What was said is broken.
    Internal = 13,
    /// Nobody can serve it now; later, somebody may.
    Unavailable = 14,
    /// The client has not said who it is.
    Unauthenticated = 16,
}

impl Code {
    fn value(self) -> HeaderValue {
        HeaderValue::from(self as u16)
    }

    const fn of(error: Error) -> Self {
        match error {
            Error::UnknownHost | Error::UnknownPath | Error::Method => Self::Unimplemented,
            Error::Forbidden => Self::PermissionDenied,
            Error::ClientCertificate => Self::Unauthenticated,
            Error::Deadline => Self::DeadlineExceeded,
            Error::HeadTooLarge | Error::TargetTooLong | Error::Upload(UploadError::TooLarge) => {
                Self::ResourceExhausted
            }
            Error::Upload(UploadError::Timeout) => Self::Cancelled,
            Error::Misdirected => Self::Unavailable,
            error => Self::of_status(error.status()),
        }
    }

    /// What a status of HTTP stands for (`doc/http-grpc-status-mapping.md`).
    const fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 508 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 501 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// The type of a message of gRPC; nothing if it is another's.
#[must_use]
pub fn kind(headers: &HeaderMap) -> Option<&HeaderValue> {
    let kind = headers.get(header::CONTENT_TYPE)?;
    let rest = kind.as_bytes().strip_prefix(TYPE)?;
    matches!(rest.first(), None | Some(b'+' | b';' | b'-')).then_some(kind)
}

/// Whether a message is one of gRPC whose status comes in trailers.
#[must_use]
pub fn has_trailers(headers: &HeaderMap) -> bool {
    kind(headers).is_some_and(|kind| kind.as_bytes().get(TYPE.len()) != Some(&b'-'))
}

/// The type of a call; nothing if it is none.
#[must_use]
pub fn call<'h>(method: &Method, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    if *method == Method::POST { kind(headers) } else { None }
}

/// How long the client waits for the whole call.
#[must_use]
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_short = digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| is_short)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The status in trailers, or in a head that stands for them; one that cannot be read is unknown.
#[must_use]
pub fn status(headers: &HeaderMap) -> Option<u8> {
    let text = headers.get(&STATUS)?.to_str().ok();
    Some(text.and_then(|text| text.parse().ok()).unwrap_or(Code::Unknown as u8))
}

/// An answer that is a status and nothing else, to a call of this type.
#[must_use]
pub fn refusal(error: Error, kind: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(STATUS, Code::of(error).value());
    headers.insert(MESSAGE, HeaderValue::from_static(error.message()));
    response
}

/// The end of an answer that the member has not ended.
#[must_use]
pub fn broken_off(error: DownloadError) -> HeaderMap {
    let (code, message) = match error {
        DownloadError::Deadline => (Code::DeadlineExceeded, "the call took too long"),
        DownloadError::Timeout | DownloadError::Idle => {
            (Code::Unavailable, "the server fell silent")
        }
        DownloadError::Broken => (Code::Unavailable, "the server broke off"),
        DownloadError::Stalled => (Code::Cancelled, "the client has stopped to read"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, code.value());
    trailers.insert(MESSAGE, HeaderValue::from_static(message));
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::load::Failure;

    fn headers(name: &str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn calls_are_known_by_method_and_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web+proto", true),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let headers = headers("content-type", kind);
            assert_eq!(call(&Method::POST, &headers).is_some(), is, "{kind}");
            assert_eq!(call(&Method::GET, &headers), None);
        }
    }

    #[test]
    fn the_web_has_no_trailers() {
        let has = |kind| has_trailers(&headers("content-type", kind));
        assert!(has("application/grpc") && has("application/grpc+proto"));
        assert!(!has("application/grpc-web") && !has("application/grpc-web-text+proto"));
        assert!(!has("text/plain") && !has_trailers(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_has_a_unit_and_eight_digits_at_most() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("100000000n", None),
            ("+1S", None),
            ("S", None),
            ("1", None),
            ("", None),
            ("1s", None),
        ] {
            assert_eq!(timeout(&headers("grpc-timeout", text)), expected, "{text}");
        }
    }

    #[test]
    fn what_gibbon_refuses_has_a_code_of_its_own() {
        for (error, code) in [
            (Error::NoMember, 14),
            (Error::SessionMember, 14),
            (Error::Member(Failure::Reset), 14),
            (Error::Member(Failure::Timeout), 14),
            (Error::Deadline, 4),
            (Error::UnknownPath, 12),
            (Error::Forbidden, 7),
            (Error::ClientCertificate, 16),
            (Error::Busy, 14),
            (Error::Upload(UploadError::TooLarge), 8),
            (Error::BadRequest("x"), 13),
            (Error::Refused(StatusCode::UNAUTHORIZED), 16),
        ] {
            let response = refusal(error, HeaderValue::from_static("application/grpc"));
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(status(response.headers()), Some(code), "{error:?}");
            assert!(response.body().is_empty());
        }
    }

    #[test]
    fn a_status_that_cannot_be_read_is_unknown() {
        assert_eq!(status(&headers("grpc-status", "14")), Some(14));
        assert_eq!(status(&headers("grpc-status", "fine")), Some(2));
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
