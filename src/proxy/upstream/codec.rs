//! HTTP/1.1 with a member as bytes (RFC 9112): how requests are written, how answers are read, and
//! where their bodies end. Nothing here waits for anything.

use std::io::Write;

use bytes::{Buf, Bytes};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::proxy::headers;

/// Fields that each answer gets besides, so that there is room for them at once.
const ADDED: usize = 1;
/// Fields of a head, or of trailers.
const MAX_FIELDS: usize = 100;
/// Bytes of the line that a chunk begins with.
const MAX_CHUNK_LINE: usize = 4096;
/// Bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// What a member says is no HTTP/1.1, or could be understood in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// By its length: so much is still to come.
    Length(u64),
    /// By chunks.
    Chunked,
}

impl Encoder {
    /// What comes before a part of the body, and after it.
    ///
    /// # Errors
    /// When the body is longer than its length.
    pub fn part(&mut self, bytes: u64, out: &mut Vec<u8>) -> Result<&'static [u8], Malformed> {
        match self {
            Self::Length(left) => {
                *left = left.checked_sub(bytes).ok_or(Malformed)?;
                Ok(b"")
            }
            Self::Chunked => {
                // A vector takes all that is written to it.
                write!(out, "{bytes:x}\r\n").map_err(|_| Malformed)?;
                Ok(b"\r\n")
            }
        }
    }

    /// The end of the body.
    ///
    /// # Errors
    /// When the body is shorter than its length.
    pub fn end(self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Length(0) => Ok(()),
            Self::Length(_) => Err(Malformed),
            Self::Chunked => {
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    write_fields(trailers, out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_field(name.as_str(), value, out);
    }
}

/// Writes a line of a head.
pub fn write_field(name: &str, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    /// The answer.
    pub response: Response<()>,
    /// Whether the connection may be used for another request.
    pub keeps: bool,
}

/// Takes a head from what was read; nothing if it is not whole yet.
///
/// # Errors
/// When it is none.
pub fn head(read: &mut Bytes) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let mut response = Response::new(());
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| Malformed)?;
    *response.status_mut() = status;
    let is_new = parsed.version == Some(1);
    *response.version_mut() = if is_new { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason
        && Some(reason) != status.canonical_reason()
    {
        let reason = read.slice_ref(reason.as_bytes());
        response.extensions_mut().insert(ReasonPhrase::try_from(reason).map_err(|_| Malformed)?);
    }
    let head = response.headers_mut();
    head.reserve(parsed.headers.len() + ADDED);
    let (mut asks_to_keep, mut asks_to_close) = (is_new, false);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value));
        let value = value.map_err(|_| Malformed)?;
        if name == header::CONNECTION {
            for asked in headers::tokens(&value) {
                asks_to_keep |= asked.eq_ignore_ascii_case("keep-alive");
                asks_to_close |= asked.eq_ignore_ascii_case("close");
            }
        }
        head.append(name, value);
    }
    read.advance(length);
    Ok(Some(Head { response, keeps: asks_to_keep && !asks_to_close }))
}

/// How the end of an answer's body is told, and how far it has come (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// By its length: so much is still to come.
    Length(u64),
    /// By chunks.
    Chunked(Chunk),
    /// By the end of the connection.
    Close,
    /// There was one of these.
    Ended,
}

/// What comes next of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The line with the length of one.
    Begin,
    /// So much of one.
    Data(u64),
    /// The end of its line.
    End,
    /// What follows the last.
    Trailers,
}

/// What was taken from what was read.
#[derive(Debug)]
pub enum Taken {
    /// A part of the body.
    Data(Bytes),
    /// What follows it; it has ended.
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// Nothing before more is read.
    Nothing,
}

impl Decoder {
    /// Of an answer to such a request. Its framing is known to be unambiguous.
    ///
    /// # Errors
    /// When the head contradicts itself.
    pub fn of(method: &Method, answer: &Response<()>) -> Result<Self, Malformed> {
        let (status, head) = (answer.status(), answer.headers());
        let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if method == Method::HEAD || status.is_informational() || is_bare {
            return Ok(Self::Ended);
        }
        if head.contains_key(header::TRANSFER_ENCODING) {
            let may_be = answer.version() == Version::HTTP_11;
            return if may_be { Ok(Self::Chunked(Chunk::Begin)) } else { Err(Malformed) };
        }
        let Some(length) = head.get(header::CONTENT_LENGTH) else {
            return Ok(Self::Close);
        };
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        match length.ok_or(Malformed)? {
            0 => Ok(Self::Ended),
            length => Ok(Self::Length(length)),
        }
    }

    /// Takes what comes next.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn take(&mut self, read: &mut Bytes) -> Result<Taken, Malformed> {
        loop {
            match self {
                Self::Ended => return Ok(Taken::End),
                _ if read.is_empty() => return Ok(Taken::Nothing),
                Self::Close => return Ok(Taken::Data(std::mem::take(read))),
                Self::Length(left) => {
                    let part = part(read, left);
                    if *left == 0 {
                        *self = Self::Ended;
                    }
                    return Ok(Taken::Data(part));
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let part = part(read, left);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::End);
                        self.look_ahead(read);
                    }
                    return Ok(Taken::Data(part));
                }
                Self::Chunked(Chunk::End) => {
                    if !b"\r\n".starts_with(&read[..read.len().min(2)]) {
                        return Err(Malformed);
                    }
                    if read.len() < 2 {
                        return Ok(Taken::Nothing);
                    }
                    read.advance(2);
                    *self = Self::Chunked(Chunk::Begin);
                }
                Self::Chunked(Chunk::Begin) => match chunk_size(read)? {
                    None => return Ok(Taken::Nothing),
                    Some((line, size)) => {
                        read.advance(line);
                        let next = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                        *self = Self::Chunked(next);
                    }
                },
                Self::Chunked(Chunk::Trailers) => {
                    let Some(trailers) = trailers(read)? else { return Ok(Taken::Nothing) };
                    *self = Self::Ended;
                    return Ok(if trailers.is_empty() {
                        Taken::End
                    } else {
                        Taken::Trailers(trailers)
                    });
                }
            }
        }
    }

    /// Sees at once that the body ends with a chunk, as it does most often.
    fn look_ahead(&mut self, read: &mut Bytes) {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if read.starts_with(LAST) {
            read.advance(LAST.len());
            *self = Self::Ended;
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// When the body has not.
    pub fn close(&mut self) -> Result<(), Malformed> {
        if matches!(self, Self::Close | Self::Ended) {
            *self = Self::Ended;
            return Ok(());
        }
        Err(Malformed)
    }

    /// How much is still to come, if that is known.
    #[must_use]
    pub const fn left(self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::Close => None,
        }
    }
}

fn part(read: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= length as u64;
    read.split_to(length)
}

/// The length of the line, and of the chunk.
fn chunk_size(read: &[u8]) -> Result<Option<(usize, u64)>, Malformed> {
    // No digit is no zero.
    if !read.first().is_some_and(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    match httparse::parse_chunk_size(read) {
        // Others would take it for the end of the line.
        Ok(httparse::Status::Complete((line, _))) if read[..line - 2].contains(&b'\n') => {
            Err(Malformed)
        }
        Ok(httparse::Status::Complete((line, size))) if line <= MAX_CHUNK_LINE => {
            Ok(Some((line, size)))
        }
        Ok(httparse::Status::Partial) if read.len() < MAX_CHUNK_LINE => Ok(None),
        _ => Err(Malformed),
    }
}

fn trailers(read: &mut Bytes) -> Result<Option<HeaderMap>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut trailers = HeaderMap::new();
    let length = match httparse::parse_headers(read, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length <= MAX_TRAILERS => {
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
                trailers.append(name, value);
            }
            length
        }
        Ok(httparse::Status::Partial) if read.len() < MAX_TRAILERS => return Ok(None),
        _ => return Err(Malformed),
    };
    read.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(head: &str) -> Response<()> {
        let mut read = Bytes::copy_from_slice(head.as_bytes());
        super::head(&mut read).unwrap().expect("it is whole").response
    }

    /// A body, its trailers, and what is left behind it.
    type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Of a body that comes in parts of this size.
    fn decoded(decoder: Decoder, text: &[u8], size: usize) -> Result<Whole, Malformed> {
        let (mut decoder, mut body, mut read) = (decoder, Vec::new(), Bytes::new());
        let mut parts = text.chunks(size);
        loop {
            match decoder.take(&mut read)? {
                Taken::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Taken::Trailers(trailers) => {
                    assert_eq!(decoder, Decoder::Ended);
                    let rest = [&read, parts.collect::<Vec<_>>().concat().as_slice()].concat();
                    return Ok((body, Some(trailers), rest));
                }
                Taken::End => {
                    let rest = [&read, parts.collect::<Vec<_>>().concat().as_slice()].concat();
                    return Ok((body, None, rest));
                }
                Taken::Nothing => match parts.next() {
                    Some(part) => read = [&read, part].concat().into(),
                    None => decoder.close()?,
                },
            }
        }
    }

    const CHUNKS: Decoder = Decoder::Chunked(Chunk::Begin);

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let chunked = b"3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET";
        let trailed = b"1 \r\nx\r\n0\r\nA: b\r\nA: c\r\n\r\n";
        for size in 1..chunked.len() {
            let (body, trailers, rest) = decoded(CHUNKS, chunked, size).unwrap();
            assert_eq!((&*body, trailers, &*rest), (&b"abc0123456789"[..], None, &b"GET"[..]));
            let (body, trailers, rest) = decoded(CHUNKS, trailed, size).unwrap();
            let trailers = trailers.unwrap();
            assert!(trailers.get_all("a").iter().eq(["b", "c"]));
            assert_eq!((&*body, &*rest), (&b"x"[..], &b""[..]));
            let (body, _, rest) = decoded(Decoder::Length(5), b"0123456", size).unwrap();
            assert_eq!((&*body, &*rest), (&b"01234"[..], &b"56"[..]));
            let (body, ..) = decoded(Decoder::Close, b"0123456", size).unwrap();
            assert_eq!(body, b"0123456");
        }
    }

    #[test]
    fn what_is_no_chunk_or_ends_too_early_is_an_error() {
        for text in [
            "",
            "\r\n",
            ";x\r\n0\r\n\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "-1\r\nx\r\n0\r\n\r\n",
            "0x1\r\nx\r\n0\r\n\r\n",
            "g\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
            "1\rx\r\n0\r\n\r\n",
            "1\r\nxy\r\n0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1\r\nx\r\n",
            "1\r\nx\r\n0\r\n",
            "1\r\nx\r\n0\r\nno field\r\n\r\n",
            "10000000000000000\r\nx",
        ] {
            for size in [1, 1000] {
                let decoded = decoded(CHUNKS, text.as_bytes(), size);
                assert!(decoded.is_err(), "{text:?}: {decoded:?}");
            }
        }
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE));
        assert!(decoded(CHUNKS, long.as_bytes(), 100).is_err());
        let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(MAX_TRAILERS));
        assert!(decoded(CHUNKS, long.as_bytes(), 100).is_err());
        assert!(decoded(Decoder::Length(3), b"ab", 1).is_err());
    }

    #[test]
    fn the_end_of_an_answer_is_where_its_head_says() {
        let of = |method: &Method, head: &str| Decoder::of(method, &answer(head));
        let get = |head: &str| of(&Method::GET, head);
        let length = "Content-Length: 12\r\n";
        let coding = "Transfer-Encoding: Chunked\r\n";
        let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(get(&ok(length)), Ok(Decoder::Length(12)));
        assert_eq!(get(&ok("Content-Length: 0\r\n")), Ok(Decoder::Ended));
        assert_eq!(get(&ok(coding)), Ok(CHUNKS));
        assert_eq!(get(&ok("")), Ok(Decoder::Close));
        assert_eq!(get(&ok("Content-Length: \r\n")), Err(Malformed));
        assert_eq!(get(&ok("Content-Length: 99999999999999999999\r\n")), Err(Malformed));
        assert_eq!(get(&format!("HTTP/1.0 200 OK\r\n{coding}\r\n")), Err(Malformed));
        for fields in [length, coding, ""] {
            assert_eq!(of(&Method::HEAD, &ok(fields)), Ok(Decoder::Ended));
            for status in ["204 No Content", "304 Not Modified", "101 Switching Protocols"] {
                assert_eq!(get(&format!("HTTP/1.1 {status}\r\n{fields}\r\n")), Ok(Decoder::Ended));
            }
        }
    }

    #[test]
    fn a_connection_is_kept_where_both_ends_would() {
        for (version, connection, keeps) in [
            (1, "", true),
            (1, "Connection: close\r\n", false),
            (1, "Connection: keep-alive, CLOSE\r\n", false),
            (1, "Connection: close\r\nConnection: keep-alive\r\n", false),
            (1, "Connection: closed\r\n", true),
            (0, "", false),
            (0, "Connection: Keep-Alive\r\n", true),
            (0, "Connection: Keep-Alive\r\nConnection: close\r\n", false),
        ] {
            let text = format!("HTTP/1.{version} 200 OK\r\n{connection}\r\nrest");
            let mut read = Bytes::from(text.clone());
            assert_eq!(head(&mut read).unwrap().unwrap().keeps, keeps, "{text}");
            assert_eq!(read, "rest");
        }
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole_and_kept_as_it_is() {
        let text = b"HTTP/1.1 404 Nothing Here\r\nA: b \r\nA:\r\nX-Long: caf\xe9\r\n\r\n";
        for length in 0..text.len() {
            let mut read = Bytes::copy_from_slice(&text[..length]);
            assert!(matches!(head(&mut read), Ok(None)), "{length}");
            assert_eq!(read.len(), length);
        }
        let response = head(&mut Bytes::from_static(text)).unwrap().unwrap().response;
        assert_eq!(response.status(), 404);
        let reason = response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Nothing Here");
        let values: Vec<_> = response.headers().get_all("a").iter().collect();
        assert_eq!(values, ["b", ""]);
        assert_eq!(response.headers()["x-long"].as_bytes(), b"caf\xe9");
        let usual = answer("HTTP/1.1 200 OK\r\n\r\n");
        assert!(usual.extensions().get::<ReasonPhrase>().is_none());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        for malformed in ["HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 99 No\r\n\r\n", "SSH-2.0\r\n", &many]
        {
            let mut read = Bytes::copy_from_slice(malformed.as_bytes());
            assert!(head(&mut read).is_err(), "{malformed}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut trailers = HeaderMap::new();
        trailers.insert("sum", HeaderValue::from_static("1"));
        let mut out = Vec::new();
        let mut encoder = Encoder::Chunked;
        for part in [&b"abc"[..], &[b'x'; 300]] {
            let after = encoder.part(part.len() as u64, &mut out).unwrap();
            out.extend_from_slice(part);
            out.extend_from_slice(after);
        }
        encoder.end(Some(&trailers), &mut out).unwrap();
        let (body, told, rest) = decoded(CHUNKS, &out, 7).unwrap();
        assert_eq!((body.len(), told, rest.len()), (303, Some(trailers), 0));
    }

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let mut encoder = Encoder::Length(5);
        assert_eq!(encoder.part(4, &mut Vec::new()), Ok(&b""[..]));
        assert_eq!(encoder.end(None, &mut Vec::new()), Err(Malformed));
        assert_eq!(encoder.part(2, &mut Vec::new()), Err(Malformed));
        encoder.part(1, &mut Vec::new()).unwrap();
        encoder.end(None, &mut Vec::new()).unwrap();
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_is_understood(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("\r\n"), Just("\r\n"), Just("\n"), Just("\r"), Just("0"), Just("0\r\n\r\n"), Just("1"),
                    Just("3\r\nabc\r\n"), Just("a"), Just(";"), Just(" "), Just("x: y"), Just("\u{e9}"),
                ],
                0..12,
            ),
            size in 1..9_usize,
        ) {
            let text = parts.concat();
            let whole = decoded(CHUNKS, text.as_bytes(), 1000);
            prop_assert_eq!(&decoded(CHUNKS, text.as_bytes(), size), &whole);
            // What comes before is never taken for more than it was alone.
            if let Ok((body, _, rest)) = whole {
                prop_assert!(body.len() + rest.len() <= text.len());
                prop_assert!(text.as_bytes().ends_with(&rest));
            }
        }
    }
}
