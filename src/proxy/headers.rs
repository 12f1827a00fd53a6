//! Headers between client and member: what belongs to one connection only, what tells the member
//! who asks (`X-Forwarded-*`), and what shows a request that goes round in circles.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Version};
use hyper::ext::Protocol;

use super::fields::Fields;
use crate::table::access::Networks;

/// The name of the field that names a request.
pub const X_REQUEST_ID: &str = "x-request-id";

static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Rarer fields of one connection ([`Fields::HOP`]). `Trailer` is not among them: trailers go through.
const HOP_BY_HOP: [HeaderName; 3] = [
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
];

/// Fields that `Connection` may not list: what frames the message, what says who asks for what and
/// what it is called, and what a proxy in front has written. Nor itself, else the rest of its fields went unread.
const NEVER_LISTED: [&str; 15] = [
    "authorization",
    "cdn-loop",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "set-cookie",
    "traceparent",
    "tracestate",
    "trailer",
    "x-real-ip",
    X_REQUEST_ID,
];

/// How many fields are added to a request at most.
pub const MOST_ADDED: usize = 7;

/// Gibbon's name in `CDN-Loop`.
const PSEUDONYM: &str = "gibbon";
/// Times that a request may have passed before: more than any chain of proxies that is meant.
const MAX_PASSES: usize = 8;

/// The other end of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, that of IPv4 in no other clothes.
    pub ip: IpAddr,
    /// The same as it stands in fields.
    pub text: HeaderValue,
    /// Whether it is believed what it says of who asks.
    pub trusted: bool,
}

impl Peer {
    /// The peer of this address.
    #[must_use]
    pub fn new(ip: IpAddr, trusted: &Networks) -> Self {
        let ip = ip.to_canonical();
        Self { ip, text: value_of(ip), trusted: trusted.contain(ip) }
    }
}

/// An address as the value of a field.
fn value_of(ip: IpAddr) -> HeaderValue {
    // Digits, letters, dots and colons are always a value.
    HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("-"))
}

/// Who asks, as far as trusted peers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address.
    pub ip: IpAddr,
    /// Whether the client speaks TLS, to Gibbon or to a trusted peer.
    pub https: bool,
    /// The host and port that a trusted peer was asked for; none: those of the request.
    pub host: Option<Box<str>>,
}

/// Finds out who asks: the connection's peer, or whom it names if it is trusted.
#[must_use]
pub fn client(peer: &Peer, tls: bool, headers: &HeaderMap, trusted: &Networks) -> Client {
    let ip = peer.ip;
    if !peer.trusted {
        return Client { ip, https: tls, host: None };
    }
    let host = last(headers, &X_FORWARDED_HOST).filter(|host| is_host(host));
    Client {
        ip: origin(ip, headers, trusted),
        https: forwarded_https(headers).unwrap_or(tls),
        host: host.map(Into::into),
    }
}

/// The nearest address in `X-Forwarded-For` that is not trusted, else the farthest. What stands to
/// the left of an untrusted or malformed entry is hearsay.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut ip = peer;
    for entry in from_the_right(headers, &X_FORWARDED_FOR) {
        if !trusted.contain(ip) {
            break;
        }
        let Some(next) = address(entry) else { break };
        ip = next;
    }
    ip
}

/// An address, with or without a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|ip: IpAddr| ip.to_canonical())
}

fn forwarded_https(headers: &HeaderMap) -> Option<bool> {
    let proto = last(headers, &X_FORWARDED_PROTO)?;
    let is = |scheme| proto.eq_ignore_ascii_case(scheme);
    if is("https") { Some(true) } else { is("http").then_some(false) }
}

/// A host as it may stand in a URL. No user, whatever a URL allows.
fn is_host(text: &str) -> bool {
    !text.contains('@') && text.parse::<Authority>().is_ok_and(|host| !host.host().is_empty())
}

/// The entries of a list, over all its fields, from the last to the first; empty ones are skipped.
fn from_the_right<'r>(
    headers: &'r HeaderMap,
    name: &'static HeaderName,
) -> impl Iterator<Item = &'r [u8]> {
    let fields = headers.get_all(name).into_iter().rev();
    let entries = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// The last entry: the one that the peer itself has written.
fn last<'r>(headers: &'r HeaderMap, name: &'static HeaderName) -> Option<&'r str> {
    str::from_utf8(from_the_right(headers, name).next()?).ok()
}

/// What a request wanted of its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The protocols that it would rather speak.
    pub upgrade: Option<HeaderValue>,
}

/// Whether a request asks to leave HTTP; only HTTP/1.1 can.
#[must_use]
pub fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11 && upgrade(request.headers()).is_some()
}

/// Turns an extended CONNECT for a WebSocket (RFC 8441) into what HTTP/1.1 says for it, and returns
/// true; other requests stay as they are.
pub fn websocket<B>(request: &mut Request<B>, nonce: impl FnOnce() -> [u8; 16]) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if request.method() != Method::CONNECT || !is_websocket {
        return false;
    }
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(key) = HeaderValue::try_from(STANDARD.encode(nonce())) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    true
}

/// Removes from a request what belongs to the client's connection, except that the member learns
/// whether trailers are welcome.
pub fn request(headers: &mut HeaderMap, fields: Fields) -> Hop {
    if !fields.has(Fields::OF_THE_CONNECTION) {
        return Hop::default();
    }
    let trailers = lists(headers, &header::TE, "trailers");
    let hop = Hop { upgrade: upgrade(headers).cloned() };
    strip_hop_by_hop(headers, fields);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    hop
}

/// Removes from a response what belongs to the member's connection; returns the protocol that a
/// 101 changes to.
pub fn response(headers: &mut HeaderMap, fields: Fields) -> Option<HeaderValue> {
    let upgrade = if fields.has(Fields::UPGRADE) { upgrade(headers).cloned() } else { None };
    strip_hop_by_hop(headers, fields);
    // Alike lengths are one (RFC 9112, section 6.3).
    if fields.has(Fields::REPEATED)
        && let Some(length) = headers.get(header::CONTENT_LENGTH).cloned()
    {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    upgrade
}

/// Grants another protocol on the connection that these headers go to.
pub fn switch(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
    }
}

/// Removes `Connection`, what it lists and the other fields of one connection.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, fields: Fields) {
    if fields.has(Fields::CONNECTION) {
        remove_connection(headers);
    }
    let others = [
        (Fields::UPGRADE, header::UPGRADE),
        (Fields::TE, header::TE),
        (Fields::KEEP_ALIVE, KEEP_ALIVE),
        (Fields::CODING, header::TRANSFER_ENCODING),
    ];
    for (field, name) in others {
        if fields.has(field) {
            headers.remove(name);
        }
    }
    if fields.has(Fields::HOP) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes `Connection` and what it lists.
fn remove_connection(headers: &mut HeaderMap) {
    let mut field = 0;
    while let Some(value) = headers.get_all(header::CONNECTION).into_iter().nth(field).cloned() {
        // What most say, and which names nothing that is not removed anyway.
        if !matches!(value.as_bytes(), b"keep-alive" | b"close") {
            tokens(&value).for_each(|token| remove_listed(headers, token));
        }
        field += 1;
    }
    headers.remove(header::CONNECTION);
}

fn remove_listed(headers: &mut HeaderMap, token: &str) {
    let never = NEVER_LISTED.iter().any(|name| name.eq_ignore_ascii_case(token));
    if !never && !is_x_forwarded(token) {
        headers.remove(token);
    }
}

/// The value of `Upgrade` if `Connection` lists it. Another version of HTTP is not offered: in a
/// tunnel, its requests would pass by the rules.
fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(header::UPGRADE)?;
    let http = |token: &str| starts_with(token, "h2") || starts_with(token, "http/");
    let refused = value.to_str().is_err() || tokens(value).any(http);
    (!refused && lists(headers, &header::CONNECTION, "upgrade")).then_some(value)
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut tokens = headers.get_all(name).into_iter().flat_map(tokens);
    tokens.any(|listed| listed.eq_ignore_ascii_case(token))
}

/// The entries of one field; those that are no text are skipped.
pub fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let entries = value.as_bytes().split(|byte| *byte == b',');
    entries.filter_map(|entry| str::from_utf8(entry.trim_ascii()).ok())
}

/// Whether the length of the body is said in one way: by one Content-Length, by one final
/// `chunked`, or not at all. All else could be understood differently by two servers.
#[must_use]
pub fn is_framed_once(headers: &HeaderMap, fields: Fields) -> bool {
    if !fields.has(Fields::CODING) && !fields.has(Fields::REPEATED) {
        return headers.get(header::CONTENT_LENGTH).is_none_or(is_number);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => true,
        (Some(coding), None) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (None, Some(length)) => lengths.all(|other| other == length) && is_number(length),
        (Some(_), Some(_)) => false,
    }
}

fn is_number(length: &HeaderValue) -> bool {
    !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
}

/// Whether a response is of server-sent events, which come when they come.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let (kind, rest) = kind.split_at(kind.len().min(EVENTS.len()));
    kind.eq_ignore_ascii_case(EVENTS) && matches!(rest.first(), None | Some(b';' | b' '))
}

/// Whether the client waits to be told to send its body (RFC 9110, section 10.1.1).
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    lists(headers, &header::EXPECT, "100-continue")
}

/// Counts an OPTIONS on its way down; false if it must go no further (RFC 9110, section 7.6.2).
#[must_use]
pub fn may_go_on(headers: &mut HeaderMap) -> bool {
    let text = headers.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok());
    match text.and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => false,
        Some(left) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
        None => true,
    }
}

/// Takes from trailers what belongs in a head, and what says who asks: some members make one of both.
pub fn trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers, Fields::of(trailers));
    remove_all(trailers, |name| is_hearsay(name) || is_subject(name));
    let misplaced = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::AUTHORIZATION,
        header::SET_COOKIE,
        header::COOKIE,
        header::TRAILER,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::MAX_FORWARDS,
        header::LOCATION,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static(X_REQUEST_ID),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        CDN_LOOP.clone(),
    ];
    for name in misplaced {
        trailers.remove(name);
    }
}

/// What members are told besides what a client says. It stands behind that, and not among it: to make
/// room for it there costs more than all else that is done with most heads.
#[derive(Debug, Default)]
pub struct Added(Vec<(&'static HeaderName, HeaderValue)>);

impl Added {
    /// With room for all that may come.
    #[must_use]
    pub fn with_room() -> Self {
        Self(Vec::with_capacity(MOST_ADDED))
    }

    /// Another field.
    pub fn push(&mut self, name: &'static HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Another field, unless this cannot be its value.
    fn push_text(&mut self, name: &'static HeaderName, value: Vec<u8>) {
        if let Some(value) = filled(value) {
            self.push(name, value);
        }
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// Puts them among the others after all.
    pub fn move_into(&mut self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (name, value) in self.0.drain(..) {
            headers.append(name, value);
        }
    }
}

/// Tells the member who asks, and for which `host`. A trusted peer's `X-Forwarded-For` is continued
/// with its own address, so this must be called once a request; all that an untrusted one says is
/// replaced.
pub fn forwarded(
    headers: &mut HeaderMap,
    added: &mut Added,
    fields: Fields,
    peer: &Peer,
    client: &Client,
    host: &HeaderValue,
) {
    if fields.has(Fields::HEARSAY) {
        // What a trusted peer has written is spelt as it is meant.
        remove_all(headers, if peer.trusted { is_misspelt } else { is_hearsay });
        let mut path = joined(headers, &X_FORWARDED_FOR, b", ");
        let separator: &[u8] = if path.is_empty() { b"" } else { b", " };
        path.extend_from_slice(separator);
        path.extend_from_slice(peer.text.as_bytes());
        added.push_text(&X_FORWARDED_FOR, path);
        for name in [&X_FORWARDED_FOR, &X_REAL_IP, &X_FORWARDED_HOST, &X_FORWARDED_PROTO] {
            headers.remove(name);
        }
    } else {
        added.push(&X_FORWARDED_FOR, peer.text.clone());
    }
    let ip = if client.ip == peer.ip { peer.text.clone() } else { value_of(client.ip) };
    added.push(&X_REAL_IP, ip);
    match &client.host {
        Some(host) => added.push_text(&X_FORWARDED_HOST, host.as_bytes().to_vec()),
        None if host.is_empty() => {}
        None => added.push(&X_FORWARDED_HOST, host.clone()),
    }
    let proto = HeaderValue::from_static(if client.https { "https" } else { "http" });
    added.push(&X_FORWARDED_PROTO, proto);
}

/// Tells the member whose certificate the client has shown, and nothing that anybody else says of it.
pub fn identify(
    headers: &mut HeaderMap,
    added: &mut Added,
    fields: Fields,
    subject: Option<HeaderValue>,
) {
    if fields.has(Fields::SUBJECT) {
        remove_all(headers, is_subject);
    }
    if let Some(subject) = subject {
        added.push(&X_CLIENT_CERT_SUBJECT, subject);
    }
}

fn remove_all(headers: &mut HeaderMap, is: fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Whether a field says whose certificate the client has shown, however it is spelt.
#[must_use]
pub fn is_subject(name: &str) -> bool {
    same_variable(name, X_CLIENT_CERT_SUBJECT.as_str())
}

/// Whether a field says what only a trusted peer may say, however it is spelt.
#[must_use]
pub fn is_hearsay(name: &str) -> bool {
    let misspelt_id = || name != X_REQUEST_ID && same_variable(name, X_REQUEST_ID);
    name == "forwarded" || is_x_forwarded(name) || same_variable(name, "x-real-ip") || misspelt_id()
}

fn is_misspelt(name: &str) -> bool {
    name.contains('_') && is_hearsay(name)
}

fn is_x_forwarded(name: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    name.get(..PREFIX.len()).is_some_and(|start| same_variable(start, PREFIX))
}

/// CGI, WSGI and their like turn `-` into `_`, and so read `X_Real_IP` as `X-Real-IP`.
fn same_variable(name: &str, canonical: &str) -> bool {
    let dashed = |byte: u8| {
        if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    name.bytes().map(dashed).eq(canonical.bytes())
}

/// A value, unless this cannot be one or says nothing.
fn filled(value: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::try_from(value).ok().filter(|value| !value.is_empty())
}

fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for value in headers.get_all(name).into_iter().filter(|value| !value.is_empty()) {
        if !all.is_empty() {
            all.extend_from_slice(separator);
        }
        all.extend_from_slice(value.as_bytes());
    }
    all
}

/// Makes one field of several `Cookie` fields, as HTTP/2 allows them and HTTP/1.1 does not
/// (RFC 9113, 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).into_iter().nth(1).is_some() {
        let all = joined(headers, &header::COOKIE, b"; ");
        headers.remove(header::COOKIE);
        if let Some(all) = filled(all) {
            headers.insert(header::COOKIE, all);
        }
    }
}

/// Whether a request has been here too often (RFC 8586).
#[must_use]
pub fn looped(headers: &HeaderMap) -> bool {
    let entries = from_the_right(headers, &CDN_LOOP);
    entries.filter(|entry| is_own(entry)).nth(MAX_PASSES).is_some()
}

/// Whether the name before the parameters is Gibbon's.
fn is_own(entry: &[u8]) -> bool {
    let name = entry.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(PSEUDONYM.as_bytes())
}

/// Notes that a request has been here (RFC 8586).
pub fn mark_hop(added: &mut Added) {
    added.push(&CDN_LOOP, HeaderValue::from_static(PSEUDONYM));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted() -> Networks {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        Networks::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn of(peer: IpAddr, tls: bool, headers: &HeaderMap, trusted: &Networks) -> Client {
        client(&Peer::new(peer, trusted), tls, headers, trusted)
    }

    fn strip(headers: &mut HeaderMap) {
        let fields = Fields::of(headers);
        strip_hop_by_hop(headers, fields);
    }

    fn strip_request(headers: &mut HeaderMap) -> Hop {
        let fields = Fields::of(headers);
        request(headers, fields)
    }

    fn strip_response(headers: &mut HeaderMap) -> Option<HeaderValue> {
        let fields = Fields::of(headers);
        response(headers, fields)
    }

    fn tell(headers: &mut HeaderMap, peer: IpAddr, trusted: bool, client: &Client, host: &str) {
        let peer = Peer { trusted, ..Peer::new(peer, &Networks::default()) };
        let fields = Fields::of(headers);
        let mut added = Added::default();
        let host = HeaderValue::from_str(host).unwrap();
        forwarded(headers, &mut added, fields, &peer, client, &host);
        added.move_into(headers);
    }

    fn pass(headers: &mut HeaderMap) {
        let mut added = Added::default();
        mark_hop(&mut added);
        added.move_into(headers);
    }

    fn show(headers: &mut HeaderMap, subject: Option<HeaderValue>) {
        let fields = Fields::of(headers);
        let mut added = Added::default();
        identify(headers, &mut added, fields, subject);
        added.move_into(headers);
    }

    /// All values of a field.
    fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The names left over, in alphabetical order.
    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn origin_of(fields: &[&str]) -> IpAddr {
        let fields: Vec<_> = fields.iter().map(|field| ("x-forwarded-for", *field)).collect();
        of(ip(PEER), false, &headers(&fields), &trusted()).ip
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let headers = headers(&[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
        ]);
        let client = of(ip("192.0.2.7"), false, &headers, &trusted());
        assert_eq!(client, Client { ip: ip("192.0.2.7"), https: false, host: None });
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        assert_eq!(origin_of(&["203.0.113.9"]), ip("203.0.113.9"));
        assert_eq!(origin_of(&["6.6.6.6, 203.0.113.9, 10.9.9.9"]), ip("203.0.113.9"));
        assert_eq!(origin_of(&["6.6.6.6", "203.0.113.9,10.9.9.9", " fd00::1 "]), ip("203.0.113.9"));
        assert_eq!(origin_of(&["203.0.113.9, , 10.9.9.9,"]), ip("203.0.113.9"));
    }

    #[test]
    fn if_all_are_trusted_the_leftmost_is_the_client() {
        assert_eq!(origin_of(&["10.1.1.1, 10.2.2.2"]), ip("10.1.1.1"));
        assert_eq!(origin_of(&[]), ip(PEER));
        assert_eq!(origin_of(&["", " , "]), ip(PEER));
    }

    #[test]
    fn a_malformed_entry_ends_the_walk_at_the_last_good_one() {
        assert_eq!(origin_of(&["203.0.113.9, unknown, 10.9.9.9"]), ip("10.9.9.9"));
        for bad in ["unknown", "1.2.3", "1.2.3.4:99999", "[::1", "::1]", "1.2.3.4:", "é", "[]"] {
            assert_eq!(origin_of(&[&format!("203.0.113.9, {bad}")]), ip(PEER), "{bad}");
        }
    }

    #[test]
    fn entries_may_have_ports_and_brackets() {
        assert_eq!(origin_of(&["1.2.3.4:56"]), ip("1.2.3.4"));
        assert_eq!(origin_of(&["[2001:db8::1]:5"]), ip("2001:db8::1"));
        assert_eq!(origin_of(&["[2001:db8::1]"]), ip("2001:db8::1"));
        assert_eq!(origin_of(&["2001:db8::1"]), ip("2001:db8::1"));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_peer() {
        assert!(trusted().contain(ip("::ffff:10.0.0.1")));
        assert!(!trusted().contain(ip("::ffff:192.0.2.7")));
        assert_eq!(origin_of(&["203.0.113.9, ::ffff:10.9.9.9"]), ip("203.0.113.9"));
        assert_eq!(origin_of(&["[::ffff:203.0.113.9]:5"]), ip("203.0.113.9"));
        let direct = of(ip("::ffff:192.0.2.7"), true, &HeaderMap::new(), &trusted());
        assert_eq!(direct, Client { ip: ip("192.0.2.7"), https: true, host: None });
    }

    #[test]
    fn a_trusted_peer_tells_the_scheme_and_the_host() {
        let told = |proto, host, tls| {
            let headers = headers(&[("x-forwarded-proto", proto), ("x-forwarded-host", host)]);
            let client = of(ip(PEER), tls, &headers, &trusted());
            (client.https, client.host.map(String::from))
        };
        let host = |host: &str| Some(host.to_owned());
        assert_eq!(told("https", "www.site.com", false), (true, host("www.site.com")));
        assert_eq!(told("HTTP", "www.site.com:8080", true), (false, host("www.site.com:8080")));
        assert_eq!(told("http, https", "evil.example, [::1]:80", false), (true, host("[::1]:80")));
        for bad in ["", "a b", "user@www.site.com", "www.site.com/x", ":80", "é"] {
            assert_eq!(told("ftp", bad, true), (true, None), "{bad}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_goes() {
        let mut headers = headers(&[
            ("connection", "close, X-Foo"),
            ("connection", " ,\tx-bar ,,KEEP-alive"),
            ("x-foo", "1"),
            ("x-foo", "2"),
            ("x-bar", "1"),
            ("x-baz", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("trailer", "x-sum"),
            ("authorization", "Basic abc"),
            ("proxy-authorization", "Basic abc"),
        ]);
        strip(&mut headers);
        let left = ["authorization", "proxy-authorization", "trailer", "x-baz"];
        assert_eq!(names(&headers), left);
    }

    #[test]
    fn connection_cannot_take_away_what_others_rely_on() {
        let listed = "Host, Cookie, X-Secret, Authorization, Content-Length, Set-Cookie, \
                      X-Forwarded-For, x_forwarded_host, X-Forwarded-Proto, X-Real-IP, Forwarded, \
                      Expect, Trailer, CDN-Loop, Proxy-Authorization";
        let mut fields = vec![("connection", listed)];
        fields.extend(listed.split(", ").map(|name| (name, "x")));
        let mut headers = headers(&fields);
        let before = headers.keys_len();
        strip(&mut headers);
        assert_eq!(headers.keys_len(), before - 2, "{headers:?}");
        assert!(!headers.contains_key("x-secret") && !headers.contains_key("connection"));
    }

    #[test]
    fn a_connection_that_lists_itself_hides_no_other_field() {
        let fields = [("connection", "Connection"), ("connection", "x-foo"), ("x-foo", "1")];
        let mut headers = headers(&fields);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn odd_bytes_in_connection_spoil_one_entry_only() {
        let mut headers = headers(&[("connection", "é, x foo, :, x-foo"), ("x-foo", "1")]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn trailers_are_welcome_at_the_member_if_they_are_at_the_client() {
        for te in ["trailers", "gzip;q=0.5 , Trailers"] {
            let mut headers =
                headers(&[("te", "deflate"), ("te", te), ("connection", "te"), ("trailer", "x")]);
            strip_request(&mut headers);
            assert_eq!(names(&headers), ["te", "trailer"]);
            assert_eq!(values(&headers, "te"), ["trailers"]);
        }
        let mut headers = headers(&[("te", "gzip, trailers-not")]);
        assert_eq!(strip_request(&mut headers), Hop::default());
        assert!(headers.is_empty());
    }

    #[test]
    fn max_forwards_counts_down_to_the_last_recipient() {
        for (before, after, goes_on) in
            [("2", "1", true), ("1", "0", true), ("0", "0", false), ("many", "many", true)]
        {
            let mut headers = headers(&[("max-forwards", before)]);
            assert_eq!(may_go_on(&mut headers), goes_on, "{before}");
            assert_eq!(values(&headers, "max-forwards"), [after]);
        }
    }

    #[test]
    fn only_100_continue_is_waited_for() {
        assert!(expects_continue(&headers(&[("expect", "100-Continue")])));
        assert!(!expects_continue(&headers(&[("expect", "something=else")])));
    }

    #[test]
    fn an_upgrade_is_told_and_taken_out() {
        let asked =
            [("connection", "keep-alive"), ("connection", "Upgrade"), ("upgrade", "websocket")];
        let mut headers = headers(&asked);
        let hop = strip_request(&mut headers);
        assert_eq!(hop.upgrade.as_ref().unwrap(), "websocket");
        assert!(headers.is_empty());
        switch(&mut headers, hop.upgrade.as_ref());
        assert_eq!(values(&headers, "connection"), ["upgrade"]);
        assert_eq!(strip_response(&mut headers).unwrap(), "websocket");
        assert!(headers.is_empty());
        switch(&mut headers, None);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_upgrade_needs_connection_and_another_protocol_than_http() {
        let upgrade = |connection, upgrade| {
            let mut headers = headers(&[("connection", connection), ("upgrade", upgrade)]);
            strip_request(&mut headers).upgrade.is_some()
        };
        assert!(upgrade("upgrade", "websocket"));
        assert!(!upgrade("close", "websocket"));
        assert!(!upgrade("upgrade", "héron"));
        for http in ["h2c", "H2C", "websocket, h2c", "h2", "HTTP/2.0"] {
            assert!(!upgrade("upgrade", http), "{http}");
        }
    }

    #[test]
    fn only_http_1_1_leaves_http() {
        let mut request = Request::new(());
        *request.headers_mut() = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(wants_upgrade(&request));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            *request.version_mut() = version;
            assert!(!wants_upgrade(&request));
        }
    }

    #[test]
    fn what_an_untrusted_peer_says_of_itself_is_replaced() {
        let mut headers = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/evil"),
            ("x_forwarded_for", "3.3.3.3"),
            ("x-real-ip", "4.4.4.4"),
            ("x_real_ip", "4.4.4.4"),
            ("forwarded", "for=5.5.5.5"),
            ("x-forwarder", "stays"),
        ]);
        let peer = ip("::ffff:192.0.2.7");
        let client = of(peer, false, &headers, &trusted());
        tell(&mut headers, peer, false, &client, "www.site.com:8080");
        let ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarder"];
        assert_eq!(names(&headers), [&ours[..], &["x-real-ip"]].concat());
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values(&headers, "x-forwarded-host"), ["www.site.com:8080"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&headers, "x-real-ip"), ["192.0.2.7"]);
    }

    #[test]
    fn what_a_trusted_peer_says_is_continued() {
        let mut headers = headers(&[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-host", "evil.example, www.site.com"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/shop"),
            ("x-real-ip", "10.9.9.9"),
            ("forwarded", "for=203.0.113.9"),
            // The client's, whom it has not been told from.
            ("x_forwarded_for", "3.3.3.3"),
            ("x-forwarded_proto", "http"),
            ("X_Real_IP", "3.3.3.3"),
        ]);
        let client = of(ip(PEER), false, &headers, &trusted());
        tell(&mut headers, ip(PEER), true, &client, "inner.site.com");
        let chain = ["6.6.6.6, 203.0.113.9, 10.9.9.9, 10.0.0.1"];
        assert_eq!(values(&headers, "x-forwarded-for"), chain);
        assert_eq!(values(&headers, "x-forwarded-host"), ["www.site.com"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&headers, "x-real-ip"), ["203.0.113.9"]);
        assert_eq!(values(&headers, "x-forwarded-prefix"), ["/shop"]);
        assert_eq!(values(&headers, "forwarded"), ["for=203.0.113.9"]);
        assert!(names(&headers).iter().all(|name| !name.contains('_')));
    }

    #[test]
    fn nobody_but_the_handshake_says_whose_certificate_it_is() {
        let said = [
            ("x-client-cert-subject", "CN=root"),
            ("X-Client-Cert-Subject", "CN=root"),
            ("x_client_cert_subject", "CN=root"),
            ("x-client_cert-subject", "CN=root"),
            ("x-client-cert", "stays"),
        ];
        let mut none = headers(&said);
        show(&mut none, None);
        assert_eq!(names(&none), ["x-client-cert"]);
        let mut ann = headers(&said);
        show(&mut ann, Some(HeaderValue::from_static("CN=ann")));
        assert_eq!(names(&ann), ["x-client-cert", "x-client-cert-subject"]);
        assert_eq!(values(&ann, "x-client-cert-subject"), ["CN=ann"]);
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_the_client() {
        let mut headers = headers(&[("x-forwarded-host", "not a host")]);
        let client = of(ip("fd00::1"), true, &headers, &trusted());
        tell(&mut headers, ip("fd00::1"), true, &client, "");
        assert_eq!(values(&headers, "x-forwarded-for"), ["fd00::1"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn several_cookie_fields_become_one() {
        let mut headers = headers(&[("cookie", "a=b"), ("cookie", "c=d; e=f"), ("cookie", "")]);
        join_cookies(&mut headers);
        assert_eq!(values(&headers, "cookie"), ["a=b; c=d; e=f"]);
        join_cookies(&mut headers);
        assert_eq!(values(&headers, "cookie"), ["a=b; c=d; e=f"]);
        let mut none = HeaderMap::new();
        join_cookies(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_request_that_comes_round_again_and_again_is_a_loop() {
        let mut headers = headers(&[("cdn-loop", "other.example, gibbons; x=gibbon")]);
        for _ in 0..MAX_PASSES {
            pass(&mut headers);
            assert!(!looped(&headers));
        }
        pass(&mut headers);
        assert!(looped(&headers));
    }

    #[test]
    fn passes_are_counted_however_they_are_listed() {
        let passes = ["gibbon"; MAX_PASSES].join(" ,");
        assert!(!looped(&headers(&[("cdn-loop", &passes)])));
        assert!(looped(&headers(&[("cdn-loop", &passes), ("cdn-loop", "x, Gibbon ;v=1")])));
    }

    #[test]
    fn a_body_is_framed_in_one_way_or_not_at_all() {
        let good: [&[(&str, &str)]; 4] = [
            &[],
            &[("content-length", "5")],
            &[("transfer-encoding", "chunked")],
            &[("transfer-encoding", "Chunked")],
        ];
        let bad: [&[(&str, &str)]; 7] = [
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[("content-length", "")],
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "5, 5")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip")],
        ];
        let framed = |fields: &&[_]| {
            let headers = headers(fields);
            is_framed_once(&headers, Fields::of(&headers))
        };
        assert!(good.iter().all(framed));
        assert!(!bad.iter().any(framed));
    }

    #[test]
    fn trailers_carry_no_framing() {
        let mut fields = headers(&[
            ("x-checksum", "1"),
            ("content-length", "3"),
            ("host", "x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("X_Real_IP", "1.1.1.1"),
            ("x-client-cert-subject", "CN=root"),
            ("x-request-id", "forged"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "a=b"),
            ("cdn-loop", "x"),
            ("authorization", "Basic x"),
            ("proxy-authorization", "Basic x"),
        ]);
        trailers(&mut fields);
        assert_eq!(names(&fields), ["x-checksum"]);
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_sends_is_a_panic(
            fields in proptest::collection::vec((0..9usize, any::<Vec<u8>>()), 0..9),
            peer in any::<IpAddr>(),
        ) {
            let names = ["connection", "te", "upgrade", "cookie", "cdn-loop", "x-forwarded-for",
                "x-forwarded-host", "x-forwarded-proto", "x-foo"];
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.append(names[name], value);
                }
            }
            let _ = looped(&headers);
            let trusted = Networks::new(vec!["::/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]);
            let client = of(peer, false, &headers, &trusted);
            strip_request(&mut headers);
            join_cookies(&mut headers);
            tell(&mut headers, peer, true, &client, "www.site.com");
            pass(&mut headers);
            prop_assert!(!headers.contains_key("connection") && !headers.contains_key("upgrade"));
            prop_assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
            prop_assert!(headers.get_all("cookie").iter().count() <= 1);
        }

        #[test]
        fn a_client_cannot_choose_its_address(
            claimed in proptest::collection::vec("[0-9.,: a-f\\[\\]]{0,20}", 0..4),
            hops in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut chain = claimed;
            chain.push("203.0.113.9".to_owned());
            chain.extend(hops.iter().map(|hop| format!("10.0.0.{hop}")));
            prop_assert_eq!(origin_of(&[&chain.join(", ")]), ip("203.0.113.9"));
        }
    }
}
