//! What Gibbon answers itself: each reason has one status for the client and one label for metrics.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::UploadError;
use crate::table::load::Failure;
use crate::table::pages::ErrorPage;

/// The reason in the place of a member's error.
pub const REPLACED: &str = "replaced";

/// Why a request got no member's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request is no HTTP that can be passed on.
    BadRequest(&'static str),
    /// The request's head is larger, or has more fields, than is allowed.
    HeadTooLarge,
    /// The request's target is longer than any that can be read.
    TargetTooLong,
    /// CONNECT and TRACE are not passed on.
    Method,
    /// The connection's certificate is that of another host.
    Misdirected,
    /// The rule wants a certificate of the client.
    ClientCertificate,
    /// No rule has the host.
    UnknownHost,
    /// No rule of the host has the path.
    UnknownPath,
    /// The rule refuses every request, with this status.
    Refused(StatusCode),
    /// The rule shuts this client out.
    Forbidden,
    /// The request has come round to Gibbon too often.
    Loop,
    /// The client's body ended early.
    Upload(UploadError),
    /// It asks for another protocol, and the members speak HTTP/2 only.
    NoUpgrade,
    /// Every member was tried, is switched off or has no address.
    NoMember,
    /// The session's member cannot serve, and no other may.
    SessionMember,
    /// Those that could serve have as many requests as they may have.
    Busy,
    /// The last attempt failed.
    Member(Failure),
    /// The whole took longer than the rule allows.
    Deadline,
}

impl Error {
    /// The request's head cannot be read.
    pub const MALFORMED: Self = Self::BadRequest("the request's head is malformed");

    /// The status for the client.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Upload(UploadError::Broken) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::UnknownHost | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Refused(status) => status,
            Self::Forbidden | Self::ClientCertificate => StatusCode::FORBIDDEN,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoUpgrade => StatusCode::NOT_IMPLEMENTED,
            Self::Upload(UploadError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upload(UploadError::Timeout) => StatusCode::REQUEST_TIMEOUT,
            Self::NoMember | Self::SessionMember | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Member(Failure::Timeout | Failure::ConnectTimeout) | Self::Deadline => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Member(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The label in metrics and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::Method => "method",
            Self::Misdirected => "misdirected",
            Self::ClientCertificate => "client_certificate",
            Self::UnknownHost => "unknown_host",
            Self::UnknownPath => "unknown_path",
            Self::Refused(_) => "refused",
            Self::Forbidden => "forbidden",
            Self::Loop => "loop",
            Self::Upload(UploadError::Broken) => "body_broken",
            Self::Upload(UploadError::TooLarge) => "body_too_large",
            Self::Upload(UploadError::Timeout) => "body_timeout",
            Self::NoUpgrade => "no_upgrade",
            Self::NoMember => "no_member",
            Self::SessionMember => "session_member",
            Self::Busy => "busy",
            Self::Member(failure) => failure.reason(),
            Self::Deadline => "deadline",
        }
    }

    /// One sentence for the client, which shows nothing of the inside.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::HeadTooLarge => "the request's head is too large",
            Self::TargetTooLong => "the request's target is too long",
            Self::Method => "this method is not passed on",
            Self::Misdirected => "this connection is for another site: open one of its own",
            Self::ClientCertificate => "this site is for clients with a certificate of its own",
            Self::UnknownHost => "no site has this name",
            Self::UnknownPath | Self::Refused(_) => "this site has nothing at this path",
            Self::Forbidden => "this address may not use this site",
            Self::Loop => "the request goes round in circles",
            Self::Upload(UploadError::Broken) => "the request's body broke off or is malformed",
            Self::Upload(UploadError::TooLarge) => "the request's body is too large",
            Self::Upload(UploadError::Timeout) => "the request's body did not arrive in time",
            Self::NoUpgrade => "this site's servers take no WebSocket or other protocol",
            Self::NoMember => "no server is available",
            Self::SessionMember => "this session's server is not available",
            Self::Busy => "the server has too much to do: try again in a moment",
            Self::Member(Failure::Timeout | Failure::ConnectTimeout) | Self::Deadline => {
                "the server did not answer in time"
            }
            Self::Member(_) => "the server did not answer properly",
        }
    }

    /// The client's connection has bytes on it that cannot be told apart, and must end.
    #[must_use]
    pub const fn closes(self) -> bool {
        let unreadable = matches!(self, Self::HeadTooLarge | Self::TargetTooLong);
        unreadable || matches!(self, Self::BadRequest(_) | Self::Upload(_))
    }

    /// Why hyper refuses a head with this status.
    #[must_use]
    pub const fn unreadable(status: u16) -> Option<Self> {
        match status {
            400 => Some(Self::MALFORMED),
            414 => Some(Self::TargetTooLong),
            431 => Some(Self::HeadTooLarge),
            _ => None,
        }
    }

    /// The answer as it is written by HTTP/1.1 as the last on its connection, to a client whose
    /// `Accept` is not known.
    #[must_use]
    pub fn last_answer(self, date: &str) -> Bytes {
        let response = self.answer(None);
        let (body, status) = (response.body(), response.status());
        let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in response.headers() {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        let length = format!("content-length: {}\r\ndate: {date}\r\n\r\n", body.len());
        text.extend_from_slice(length.as_bytes());
        text.extend_from_slice(body);
        text.into()
    }

    /// The answer: plain text, or JSON for a client that asks for it.
    #[must_use]
    pub fn answer(self, accept: Option<&HeaderValue>) -> Response<Bytes> {
        let mut response = written(self.status(), self.reason(), self.message(), accept);
        self.describe(response.headers_mut());
        response
    }

    fn describe(self, headers: &mut HeaderMap) {
        if self == Self::Busy {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self == Self::Method {
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            headers.insert(header::ALLOW, allow);
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// What a client gets in the place of a member's error.
#[must_use]
pub fn replaced(status: StatusCode, accept: Option<&HeaderValue>) -> Response<Bytes> {
    let message = if status.is_client_error() {
        "the server does not answer this request"
    } else {
        "the server failed to answer"
    };
    written(status, REPLACED, message, accept)
}

/// Puts the rule's page into an answer of Gibbon's own, if the page has a body.
pub fn show(page: &ErrorPage, response: &mut Response<Bytes>) {
    let Some(content) = &page.content else { return };
    *response.body_mut() = Bytes::from_owner(Arc::clone(&content.body));
    response.headers_mut().insert(header::CONTENT_TYPE, content.kind.clone());
}

fn written(
    status: StatusCode,
    reason: &str,
    message: &str,
    accept: Option<&HeaderValue>,
) -> Response<Bytes> {
    let json = accept.is_some_and(wants_json);
    let body = if json {
        let code = status.as_u16();
        let body = serde_json::json!({"status": code, "reason": reason, "message": message});
        format!("{body}\n")
    } else {
        format!("{}: {message}\n", status.canonical_reason().unwrap_or("Error"))
    };
    let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn wants_json(accept: &HeaderValue) -> bool {
    let text = accept.to_str().unwrap_or_default();
    let position = |kind: &str| text.find(kind);
    match (position("json"), position("text/")) {
        (Some(json), Some(text)) => json < text,
        (json, _) => json.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_the_member_is_504_and_a_reset_502() {
        assert_eq!(Error::Member(Failure::Timeout).status(), 504);
        assert_eq!(Error::Member(Failure::Reset).status(), 502);
        assert_eq!(Error::NoMember.status(), 503);
        assert_eq!(Error::Loop.status(), 508);
    }

    #[test]
    fn the_answer_is_text_unless_json_is_preferred() {
        let text = Error::UnknownHost.answer(None);
        assert_eq!(text.body(), "Not Found: no site has this name\n");
        let json = Error::UnknownHost.answer(Some(&HeaderValue::from_static("application/json")));
        let value: serde_json::Value = serde_json::from_slice(json.body()).unwrap();
        assert_eq!(value["reason"], "unknown_host");
        let html = HeaderValue::from_static("text/html,application/json;q=0.5");
        assert!(Error::UnknownHost.answer(Some(&html)).body().starts_with(b"Not Found"));
    }
}
