//! A request as one member gets it.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use hyper::body::Body;

use super::codec::{self, Encoder};
use crate::proxy::body::Upload;
use crate::proxy::headers::{Added, MOST_ADDED};

/// A request for one member. Its head is not copied: what this member is told otherwise than others is
/// put in as it is written.
#[derive(Debug)]
pub struct Message<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub target: Cow<'a, PathAndQuery>,
    /// The fields, of which `Host` and what frames the body are not used, but for a length.
    pub head: &'a HeaderMap,
    /// More of them, of other names or for a list.
    pub added: &'a Added,
    /// The `Host`.
    pub host: &'a HeaderValue,
    /// The protocol that it asks for.
    pub upgrade: Option<&'a HeaderValue>,
    /// The body.
    pub upload: Upload,
}

impl Message<'_> {
    /// How the end of the body is told.
    #[must_use]
    pub fn encoder(&self) -> Encoder {
        let said = self.head.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let said = said.and_then(|said| said.parse().ok());
        match said.or(self.upload.size_hint().exact()) {
            Some(length) => Encoder::Length(length),
            None => Encoder::Chunked,
        }
    }

    /// Writes the head.
    pub fn write_head(&self, encoder: Encoder, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        let target = self.target.as_str();
        if !target.starts_with(['/', '*']) {
            out.push(b'/');
        }
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        codec::write_field("host", self.host, out);
        for (name, value) in self.head {
            if !matches!(*name, header::HOST | header::TRANSFER_ENCODING | header::CONTENT_LENGTH) {
                codec::write_field(name.as_str(), value, out);
            }
        }
        for (name, value) in self.added.iter() {
            codec::write_field(name.as_str(), value, out);
        }
        match encoder {
            Encoder::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Encoder::Length(length) => {
                // Where a body is expected, it is said that there is none (RFC 9110, section 8.6).
                let is_expected =
                    matches!(*self.method, Method::POST | Method::PUT | Method::PATCH);
                if length > 0 || is_expected || self.head.contains_key(header::CONTENT_LENGTH) {
                    codec::write_field("content-length", &HeaderValue::from(length), out);
                }
            }
        }
        if let Some(upgrade) = self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
            codec::write_field("upgrade", upgrade, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// As HTTP/2 has it; one without a `Host` is for the `address`.
    #[must_use]
    pub fn to_http2(&self, tls: bool, address: SocketAddr) -> Request<Upload> {
        let mut request = Request::new(self.upload.clone());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.reserve(self.head.len() + MOST_ADDED);
        for (name, value) in self.head.iter().chain(self.added.iter()) {
            if !matches!(*name, header::HOST | header::TRANSFER_ENCODING) {
                headers.append(name, value.clone());
            }
        }
        let mut parts = http::uri::Parts::default();
        let host = Authority::try_from(self.host.as_bytes()).ok();
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = host.or_else(|| address.to_string().parse().ok());
        parts.path_and_query = Some(self.target.clone().into_owned());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use http::HeaderName;

    use super::*;

    fn message<'a>(method: &'a Method, target: &str, head: &'a HeaderMap) -> Message<'a> {
        static HOST: HeaderValue = HeaderValue::from_static("member");
        static NOTHING: LazyLock<Added> = LazyLock::new(Added::default);
        let target = Cow::Owned(target.parse().unwrap());
        let upload = Upload::none();
        Message { method, target, head, added: &NOTHING, host: &HOST, upgrade: None, upload }
    }

    #[test]
    fn what_is_added_stands_behind_the_head_once_and_beside_a_list_of_the_client() {
        static LOOP: HeaderName = HeaderName::from_static("cdn-loop");
        static ID: HeaderName = HeaderName::from_static("x-request-id");
        let mut head = HeaderMap::new();
        head.insert(&LOOP, HeaderValue::from_static("other"));
        head.insert("a", HeaderValue::from_static("b"));
        let mut added = Added::default();
        added.push(&ID, HeaderValue::from_static("7"));
        added.push(&LOOP, HeaderValue::from_static("gibbon"));
        let upgrade = HeaderValue::from_static("websocket");
        let get = message(&Method::GET, "/", &head);
        let asking = Message { added: &added, upgrade: Some(&upgrade), ..get };
        assert_eq!(
            written(&asking, Encoder::Length(0)),
            "GET / HTTP/1.1\r\nhost: member\r\ncdn-loop: other\r\na: b\r\nx-request-id: 7\r\n\
             cdn-loop: gibbon\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        let request = asking.to_http2(false, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(request.headers().len(), 4);
        assert!(request.headers().get_all(&LOOP).iter().eq(["other", "gibbon"]));
        assert_eq!(request.headers()[&ID], "7");
    }

    fn written(message: &Message<'_>, encoder: Encoder) -> String {
        let mut out = Vec::new();
        message.write_head(encoder, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_body_is_framed_as_it_is_long() {
        let mut head = HeaderMap::new();
        let framed = |method: &Method, head: &HeaderMap, encoder| {
            let written = written(&message(method, "/", head), encoder);
            let fields = written.split("\r\n").skip(2).filter(|line| !line.is_empty());
            fields.collect::<Vec<_>>().join(", ")
        };
        for (method, encoder, expected) in [
            (Method::GET, Encoder::Length(0), ""),
            (Method::GET, Encoder::Chunked, "transfer-encoding: chunked"),
            (Method::GET, Encoder::Length(5), "content-length: 5"),
            (Method::POST, Encoder::Length(0), "content-length: 0"),
            (Method::PATCH, Encoder::Chunked, "transfer-encoding: chunked"),
        ] {
            assert_eq!(framed(&method, &head, encoder), expected, "{method} {encoder:?}");
        }
        assert_eq!(message(&Method::GET, "/", &head).encoder(), Encoder::Length(0));
        head.insert(header::CONTENT_LENGTH, HeaderValue::from_static("12"));
        let post = message(&Method::POST, "/", &head);
        assert_eq!(post.encoder(), Encoder::Length(12));
        assert_eq!(framed(&Method::POST, &head, Encoder::Length(12)), "content-length: 12");
    }

    #[test]
    fn a_member_gets_its_own_host_and_what_frames_nothing() {
        let mut head = HeaderMap::new();
        for (name, value) in
            [("host", "site"), ("transfer-encoding", "gzip"), ("a", "b"), ("a", "c")]
        {
            head.append(name, HeaderValue::from_static(value));
        }
        let upgrade = HeaderValue::from_static("websocket");
        let get = message(&Method::GET, "/x?y=/z", &head);
        let asking = Message { upgrade: Some(&upgrade), ..get };
        assert_eq!(
            written(&asking, Encoder::Length(0)),
            "GET /x?y=/z HTTP/1.1\r\nhost: member\r\na: b\r\na: c\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\n\r\n"
        );
        for (target, expected) in [("?q", "/?q"), ("*", "*"), ("/", "/")] {
            let written = written(&message(&Method::OPTIONS, target, &head), Encoder::Length(0));
            assert!(written.starts_with(&format!("OPTIONS {expected} HTTP/1.1\r\n")), "{written}");
        }
        let address = "10.0.0.1:8080".parse().unwrap();
        let request = message(&Method::GET, "/x?y", &head).to_http2(true, address);
        assert_eq!(request.uri(), "https://member/x?y");
        assert_eq!(request.headers().keys().collect::<Vec<_>>(), ["a"]);
        let nobody = HeaderValue::from_static("");
        let nameless = Message { host: &nobody, ..asking };
        assert_eq!(nameless.to_http2(false, address).uri(), "http://10.0.0.1:8080/x?y=/z");
    }
}
