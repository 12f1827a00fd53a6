//! Header fields between two connections: hop-by-hop, framing, X-Forwarded-*, loops. Pure.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    self, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Version};
use hyper::body::SizeHint;

use crate::table::access::Networks;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Gibbon's name in CDN-Loop (RFC 8586).
const LOOP_ID: &str = "gibbon";
/// A request that has come through Gibbon this often goes round in circles.
const MAX_PASSES: usize = 8;

/// Fields that end with the connection that they came on.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Fields that Connection may list in vain: nobody may take them from a request.
const KEPT: [HeaderName; 10] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    COOKIE,
    HOST,
    SET_COOKIE,
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_REAL_IP,
];

/// Who asks, as far as trusted peers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address.
    pub ip: IpAddr,
    /// Whether it speaks TLS.
    pub https: bool,
    /// The host that it asked for, if a trusted peer says so.
    pub host: Option<String>,
}

/// Finds the client: the last address that X-Forwarded-For names before those of trusted peers.
/// A malformed entry ends the search at the last good one.
#[must_use]
pub fn client(peer: IpAddr, tls: bool, headers: &HeaderMap, trusted: &Networks) -> Client {
    if !trusted.contain(peer) {
        return Client { ip: peer, https: tls, host: None };
    }
    let mut ip = peer;
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let texts = fields.map(|field| field.to_str().unwrap_or("?"));
    for entry in texts.flat_map(|text| text.rsplit(',')) {
        let Some(named) = address(entry.trim()) else { break };
        ip = named;
        if !trusted.contain(ip) {
            break;
        }
    }
    let proto = last(headers, &X_FORWARDED_PROTO);
    Client {
        ip,
        https: proto.map_or(tls, |proto| proto.eq_ignore_ascii_case("https")),
        host: last(headers, &X_FORWARDED_HOST)
            .filter(|host| crate::table::path::host_of(host).is_ok())
            .map(str::to_owned),
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let socket = || text.parse::<SocketAddr>().map(|socket| socket.ip());
    bare.parse::<IpAddr>().or_else(|_| socket()).ok().map(|ip| ip.to_canonical())
}

/// The last value of a list: what the nearest peer has put there.
fn last<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let field = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    field.rsplit(',').next().map(str::trim).filter(|value| !value.is_empty())
}

/// What a request asked of the connection that it came on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// It wants another protocol.
    pub upgrade: Option<HeaderValue>,
}

/// Whether the request wants another protocol, as only HTTP/1.1 can.
#[must_use]
pub fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().contains_key(UPGRADE)
        && listed(request.headers(), &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Takes from a request what ends here. `TE: trailers` stays.
pub fn request(headers: &mut HeaderMap) -> Hop {
    let trailers = listed(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    let upgrade = headers.get(UPGRADE).cloned();
    strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Hop { upgrade }
}

/// Takes from a response what ends here.
pub fn response(headers: &mut HeaderMap) {
    strip(headers);
}

/// Puts a change of protocol back in.
pub fn switch(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let names: Vec<HeaderName> = listed(headers, &CONNECTION)
            .filter_map(|name| HeaderName::try_from(name).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in names {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The items of a list field, over all its lines.
fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

/// Whether the length of the body is said in one way: by one Content-Length, by one final
/// `chunked`, or not at all. All else could be understood differently by two servers.
#[must_use]
pub fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => true,
        (Some(coding), None) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (None, Some(length)) => {
            lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        (Some(_), Some(_)) => false,
    }
}

/// Says how long the body is where hyper would not: a body of unknown length whatever the method,
/// and no body where one is expected (RFC 9110, section 8.6).
pub fn frame(headers: &mut HeaderMap, method: &Method, body: &SizeHint) {
    if headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    if body.exact() == Some(0) {
        if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if body.exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Takes from trailers what belongs in a head.
pub fn trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    let misplaced = [
        HOST,
        CONTENT_LENGTH,
        AUTHORIZATION,
        SET_COOKIE,
        COOKIE,
        TRAILER,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::LOCATION,
    ];
    for name in misplaced {
        trailers.remove(name);
    }
}

/// Says who asks. From a trusted peer X-Forwarded-For grows by that peer; from others it begins
/// with them. X-Forwarded-Host and -Proto have one value.
pub fn forwarded(headers: &mut HeaderMap, peer: IpAddr, trusted: bool, client: &Client, host: &str) {
    let before = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let before = before.collect::<Vec<_>>().join(", ");
    let chain = if trusted && !before.is_empty() { format!("{before}, {peer}") } else { peer.to_string() };
    set(headers, X_FORWARDED_FOR, &chain);
    set(headers, X_REAL_IP, &client.ip.to_string());
    set(headers, X_FORWARDED_HOST, client.host.as_deref().unwrap_or(host));
    let proto = if client.https { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    if !trusted {
        headers.remove(FORWARDED);
    }
}

/// Sets a field, or removes it where the value cannot be written.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::try_from(value) {
        Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

/// Whether the request has come through Gibbon too often.
#[must_use]
pub fn looped(headers: &HeaderMap) -> bool {
    let id = |item: &str| item.split(';').next().is_some_and(|id| id.trim() == LOOP_ID);
    headers.contains_key(CDN_LOOP)
        && listed(headers, &CDN_LOOP).filter(|item| id(item)).count() > MAX_PASSES
}

/// Notes that the request has come through Gibbon once more.
pub fn mark_hop(headers: &mut HeaderMap) {
    headers.append(CDN_LOOP, HeaderValue::from_static(LOOP_ID));
}

/// Joins the Cookie fields that HTTP/2 may split; HTTP/1.1 has one (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(COOKIE).iter();
    if fields.next().is_none() || fields.next().is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether doing it twice is as good as once (RFC 9110, section 9.2.2, and WebDAV's readers).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::access::parse_network;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            map.append(name, HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted() -> Networks {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|n| parse_network(n).unwrap());
        Networks::new(networks.to_vec())
    }

    fn found(peer: &str, chain: &[&str]) -> String {
        let fields: Vec<_> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
        client(ip(peer), false, &map(&fields), &trusted()).ip.to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(found("203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
        let said = map(&[("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example")]);
        let client = client(ip("203.0.113.9"), false, &said, &trusted());
        assert!(!client.https && client.host.is_none());
    }

    #[test]
    fn the_client_is_the_last_untrusted_address_of_the_chain() {
        assert_eq!(found("10.0.0.1", &["192.0.2.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", &["192.0.2.1", "10.0.0.3, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(found("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn entries_may_have_ports_and_a_malformed_one_ends_the_search() {
        assert_eq!(found("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]:5"]), "2001:db8::1");
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(found("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn a_trusted_peer_says_scheme_and_host() {
        let said = map(&[("x-forwarded-proto", "http, https"), ("x-forwarded-host", "a.example:8443")]);
        let client = client(ip("10.0.0.1"), false, &said, &trusted());
        assert!(client.https);
        assert_eq!(client.host.as_deref(), Some("a.example:8443"));
    }

    #[test]
    fn connection_takes_what_it_lists_and_not_what_others_need() {
        let mut headers = map(&[
            ("connection", "close, X-Foo"),
            ("connection", " host ,cookie,, authorization"),
            ("x-foo", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("host", "www.site.com"),
            ("cookie", "a=b"),
            ("authorization", "Basic eA=="),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip, trailers"),
            ("trailer", "x-checksum"),
        ]);
        let hop = request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let kept = ["authorization", "cookie", "host", "proxy-authorization", "te", "trailer"];
        assert_eq!(left, kept);
        assert_eq!(headers[TE], "trailers");
        assert_eq!(hop.upgrade.unwrap(), "websocket");
    }

    #[test]
    fn a_change_of_protocol_needs_both_fields_and_http_1_1() {
        let ask = |fields: &[(&str, &str)], version| {
            let mut request = Request::new(());
            *request.headers_mut() = map(fields);
            *request.version_mut() = version;
            wants_upgrade(&request)
        };
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert!(ask(&both, Version::HTTP_11));
        assert!(!ask(&both, Version::HTTP_10));
        assert!(!ask(&both[1..], Version::HTTP_11));
    }

    #[test]
    fn a_body_is_framed_in_one_way_or_not_at_all() {
        let good: [&[(&str, &str)]; 4] = [
            &[],
            &[("content-length", "5")],
            &[("transfer-encoding", "chunked")],
            &[("transfer-encoding", "Chunked")],
        ];
        let bad: [&[(&str, &str)]; 6] = [
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip")],
        ];
        assert!(good.iter().all(|fields| is_framed_once(&map(fields))));
        assert!(!bad.iter().any(|fields| is_framed_once(&map(fields))));
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_and_an_empty_post_says_so() {
        let framed = |method: Method, hint: SizeHint| {
            let mut headers = HeaderMap::new();
            frame(&mut headers, &method, &hint);
            headers
        };
        assert_eq!(framed(Method::GET, SizeHint::default())[TRANSFER_ENCODING], "chunked");
        assert_eq!(framed(Method::POST, SizeHint::with_exact(0))[CONTENT_LENGTH], "0");
        assert!(framed(Method::GET, SizeHint::with_exact(0)).is_empty());
    }

    fn forward(peer: &str, fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = map(fields);
        let is_trusted = trusted().contain(ip(peer));
        let client = client(ip(peer), false, &headers, &trusted());
        forwarded(&mut headers, ip(peer), is_trusted, &client, "www.site.com:8080");
        headers
    }

    #[test]
    fn untrusted_forwarding_fields_are_replaced() {
        let headers = forward(
            "203.0.113.9",
            &[("x-forwarded-for", "1.2.3.4"), ("x-real-ip", "1.2.3.4"), ("forwarded", "for=1.2.3.4")],
        );
        assert_eq!(headers[X_FORWARDED_FOR], "203.0.113.9");
        assert_eq!(headers[X_REAL_IP], "203.0.113.9");
        assert_eq!(headers[X_FORWARDED_HOST], "www.site.com:8080");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
        assert!(!headers.contains_key(FORWARDED));
    }

    #[test]
    fn trusted_chains_grow_by_one_and_the_rest_has_one_value() {
        let fields = [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-host", "www.site.com, inner"),
            ("x-forwarded-proto", "https"),
        ];
        let headers = forward("10.0.0.1", &fields);
        assert_eq!(headers[X_FORWARDED_FOR], "198.51.100.7, 10.0.0.2, 10.0.0.1");
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_REAL_IP], "198.51.100.7");
        assert_eq!(headers[X_FORWARDED_HOST], "inner");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
    }

    #[test]
    fn a_request_that_comes_round_too_often_is_noticed() {
        let mut headers = map(&[("cdn-loop", "other; v=1, gibbonx")]);
        for _ in 0..8 {
            mark_hop(&mut headers);
            assert!(!looped(&headers));
        }
        mark_hop(&mut headers);
        assert!(looped(&headers));
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=b"), ("cookie", "c=d")]);
        join_cookies(&mut headers);
        assert_eq!(headers[COOKIE], "a=b; c=d");
        assert_eq!(headers.get_all(COOKIE).iter().count(), 1);
    }

    #[test]
    fn trailers_carry_no_framing() {
        let mut fields = map(&[("x-checksum", "1"), ("content-length", "3"), ("host", "x")]);
        trailers(&mut fields);
        assert_eq!(fields.len(), 1);
    }
}
