//! Which member a session belongs to: the route that a request names in a path parameter, a query
//! parameter or a cookie, and the cookie that Gibbon itself issues for applications without one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cookie::Cookie;
use http::header::{self, HeaderMap, HeaderValue};
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take; a repetition of repetitions would take any amount.
const PATTERN_LIMIT: usize = 1 << 20;
/// Bytes that the cache of one search may take; there is one for each thread.
const SEARCH_LIMIT: usize = 1 << 18;
/// Fixed, so that all replicas and releases issue the same tokens. It is no secret.
const TOKEN_KEY: [u64; 2] = [u64::from_le_bytes(*b"gibbon.d"), u64::from_le_bytes(*b"ev/token")];

/// How requests of one rule name their member.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The application's session cookie, by its exact name.
    pub cookie: Option<Box<str>>,
    /// The path or query parameter that takes its place in clients without cookies.
    pub parameter: Option<Box<str>>,
    /// Where the route is in their values.
    pub extract: Extract,
    /// Whether another member takes over while the one named is unusable.
    pub failover: bool,
    /// The cookie that Gibbon sets itself.
    pub issue: Option<Issue>,
}

/// Finds the route in the value of a cookie or parameter.
#[derive(Clone, Debug)]
pub enum Extract {
    /// What this group of the pattern has matched.
    Regex(Arc<Regex>, usize),
    /// Everything after the first separator.
    Separator(Box<str>),
    /// The whole value.
    Whole,
}

/// A cookie that Gibbon sets on responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its name.
    pub name: Box<str>,
    /// The paths to which clients return it.
    pub path: Box<str>,
    /// Whether clients return it on requests that other sites have caused.
    pub same_site: SameSite,
    /// Whether clients return it over TLS only.
    pub secure: bool,
    /// Whether it is hidden from scripts.
    pub http_only: bool,
    /// How long clients keep it; else until they close.
    pub max_age: Option<Duration>,
}

/// A cookie's `SameSite`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Never returned on requests from other sites.
    Strict,
    /// Returned when a link is followed.
    #[default]
    Lax,
    /// Always returned; browsers then ask for `Secure`.
    None,
}

/// A member as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'r> {
    /// The route, as the application names it; its case counts.
    Route(Cow<'r, str>),
    /// The value of the cookie that Gibbon issues, see [`token`].
    Issued(&'r str),
}

impl Sticky {
    /// All that the request names, most preferred first: path parameters, query parameters, the
    /// application's cookies, Gibbon's own. The first that names a member counts, so that a stale
    /// URL does not hide a good cookie.
    ///
    /// `path` and `query` are as the client sent them.
    pub fn wanted<'r>(
        &'r self,
        path: &'r str,
        query: Option<&'r str>,
        headers: &'r HeaderMap,
    ) -> impl Iterator<Item = Wanted<'r>> + 'r {
        let routes = self.in_url(path, query).chain(self.in_cookies(headers));
        let issued = self.issue.as_ref().map(|issue| &*issue.name);
        let issued = cookies(headers, issued).map(Wanted::Issued);
        routes.map(Wanted::Route).chain(issued)
    }

    fn in_url<'r>(
        &'r self,
        path: &'r str,
        query: Option<&'r str>,
    ) -> impl Iterator<Item = Cow<'r, str>> {
        let name = self.parameter.iter();
        let values = name.flat_map(move |name| parameters(path, query, name));
        values.filter_map(|value| self.extract.route_in_url(value))
    }

    fn in_cookies<'r>(&'r self, headers: &'r HeaderMap) -> impl Iterator<Item = Cow<'r, str>> {
        let values = cookies(headers, self.cookie.as_deref());
        let routes = values.filter_map(|value| self.extract.route(value));
        routes.map(Cow::Borrowed)
    }
}

impl Extract {
    /// Compiles a pattern that is searched anywhere in the value. The route is the group named
    /// `route`, else the first group, else the whole match.
    ///
    /// # Errors
    /// Says in one line what is wrong with the pattern.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        let regex = compiled(pattern)?;
        let named = regex.capture_names().position(|name| name == Some("route"));
        let first = usize::from(regex.captures_len() > 1);
        Ok(Self::Regex(regex, named.unwrap_or(first)))
    }

    /// The route in a value; an empty one is none.
    #[must_use]
    pub fn route<'v>(&self, value: &'v str) -> Option<&'v str> {
        let route = match self {
            // `find` needs no memory for groups.
            Self::Regex(regex, 0) => regex.find(value)?.as_str(),
            Self::Regex(regex, group) => regex.captures(value)?.get(*group)?.as_str(),
            Self::Separator(separator) => value.split_once(&**separator)?.1,
            Self::Whole => value,
        };
        (!route.is_empty()).then_some(route)
    }

    pub(super) fn route_in_url<'v>(&self, value: &'v str) -> Option<Cow<'v, str>> {
        match decode(value)? {
            Cow::Borrowed(value) => self.route(value).map(Cow::Borrowed),
            Cow::Owned(value) => self.route(&value).map(|route| Cow::Owned(route.to_owned())),
        }
    }
}

/// The reason without the drawing of the pattern around it.
fn complaint(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!("the pattern is too large: compiled, it takes more than {limit} bytes");
    }
    let text = error.to_string();
    let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
    reason.unwrap_or(&text).to_owned()
}

/// Values of `;name=value` in any segment of the path, then of `name=value` in the query, where `;`
/// separates nothing.
pub(super) fn parameters<'r>(
    path: &'r str,
    query: Option<&'r str>,
    name: &'r str,
) -> impl Iterator<Item = &'r str> {
    let in_path = path.split('/').flat_map(|part| part.split(';').skip(1));
    let in_query = query.into_iter().flat_map(|query| query.split('&'));
    let pairs = in_path.chain(in_query);
    pairs.filter_map(move |pair| value_of(pair, name))
}

fn value_of<'r>(pair: &'r str, name: &str) -> Option<&'r str> {
    pair.strip_prefix(name)?.strip_prefix('=')
}

/// Values of the cookies of that name which are not empty; several fields are read as one.
pub(super) fn cookies<'r>(
    headers: &'r HeaderMap,
    name: Option<&'r str>,
) -> impl Iterator<Item = &'r str> {
    let named = name.into_iter().flat_map(|name| {
        // Split before it is read as text: a byte that is no UTF-8 spoils its own cookie only.
        pairs(headers).filter_map(move |pair| cookie(pair, name.as_bytes()))
    });
    named.filter(|value| !value.is_empty())
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
}

fn cookie<'r>(pair: &'r [u8], name: &[u8]) -> Option<&'r str> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (left, right) = pair.split_at(equals);
    if left.trim_ascii() != name {
        return None;
    }
    let value = right[1..].trim_ascii();
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    str::from_utf8(quoted.unwrap_or(value)).ok()
}

/// Resolves `%21` and the like; a `%` without two digits stays. None if that is no UTF-8.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = if first == b'%' { escaped(tail) } else { None };
        decoded.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn escaped(tail: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*tail.get(index)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

impl Issue {
    /// Whether clients would take the cookie.
    ///
    /// # Errors
    /// Says why they would not.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !is_token(name) {
            return Err(format!("`{name}` is no cookie name: letters, digits, - and _"));
        }
        if !is_path(&self.path) {
            return Err("a cookie's path starts with / and has no semicolon".to_owned());
        }
        if self.same_site == SameSite::None && !self.secure {
            return Err("browsers refuse SameSite=None without Secure".to_owned());
        }
        if name.starts_with("__Secure-") && !self.secure {
            return Err("browsers refuse a __Secure- cookie without Secure".to_owned());
        }
        if name.starts_with("__Host-") && !(self.secure && &*self.path == "/") {
            return Err("browsers refuse a __Host- cookie without Secure and Path=/".to_owned());
        }
        Ok(())
    }

    /// The `Set-Cookie` that carries a token; empty, which clients skip, if [`Self::check`] fails
    /// for a character.
    #[must_use]
    pub fn set_cookie(&self, token: &str, https: bool) -> HeaderValue {
        let mut cookie = Cookie::build((&*self.name, token))
            .path(&*self.path)
            .same_site(self.same_site.attribute())
            .secure(self.secure || https)
            .http_only(self.http_only)
            .build();
        cookie.set_max_age(self.max_age.and_then(|age| age.try_into().ok()));
        HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

fn is_token(name: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';')
}

impl SameSite {
    const fn attribute(self) -> cookie::SameSite {
        match self {
            Self::Strict => cookie::SameSite::Strict,
            Self::Lax => cookie::SameSite::Lax,
            Self::None => cookie::SameSite::None,
        }
    }
}

/// The value of the issued cookie for a route: equal on all replicas and in all releases, and
/// naming nothing. Who knows the names can compute it; it proves nothing.
#[must_use]
pub fn token(namespace: &str, name: &str, route: &str) -> String {
    let text = [namespace, name, route].join("\0");
    format!("{:016x}", siphash(TOKEN_KEY, text.as_bytes()))
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012), which the standard library has but does not promise.
fn siphash(key: [u64; 2], data: &[u8]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let (words, tail) = data.as_chunks();
    for word in words.iter().chain([&last_word(tail, data.len())]) {
        let word = u64::from_le_bytes(*word);
        state[3] ^= word;
        mix(&mut state, 2);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    mix(&mut state, 4);
    state.iter().fold(0, |hash, part| hash ^ part)
}

/// What is left over, with the length's last byte at its end.
fn last_word(tail: &[u8], length: usize) -> [u8; 8] {
    let mut word = [0; 8];
    word[..tail.len()].copy_from_slice(tail);
    word[7] = length.to_le_bytes()[0];
    word
}

fn mix(state: &mut [u64; 4], rounds: usize) {
    for _ in 0..rounds {
        half_round(state, [0, 1, 2, 3], [13, 16]);
        half_round(state, [2, 1, 0, 3], [17, 21]);
    }
}

/// Both halves of a round are alike but for the places and the rotations.
fn half_round(state: &mut [u64; 4], [a, b, c, d]: [usize; 4], [left, right]: [u32; 2]) {
    state[a] = state[a].wrapping_add(state[b]);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = state[b].rotate_left(left) ^ state[a];
    state[d] = state[d].rotate_left(right) ^ state[c];
    state[a] = state[a].rotate_left(32);
}

/// The patterns in use, so that ten thousand rules with the same one do not hold ten thousand copies
/// of it, each of some tens of kilobytes.
struct Patterns {
    known: BTreeMap<Box<str>, Weak<Regex>>,
    /// How many there may be before those that nobody uses any more are let go.
    room: usize,
}

static PATTERNS: Mutex<Patterns> = Mutex::new(Patterns { known: BTreeMap::new(), room: 0 });

impl Patterns {
    fn remember(&mut self, pattern: &str, regex: &Arc<Regex>) {
        if self.known.len() >= self.room {
            self.known.retain(|_, regex| regex.strong_count() > 0);
            self.room = 2 * self.known.len() + 16;
        }
        self.known.insert(pattern.into(), Arc::downgrade(regex));
    }
}

/// Compiles a pattern, unless a rule has it: all that have the same one share it.
fn compiled(pattern: &str) -> Result<Arc<Regex>, String> {
    let patterns = || PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = patterns().known.get(pattern).and_then(Weak::upgrade) {
        return Ok(regex);
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(PATTERN_LIMIT)
        .dfa_size_limit(SEARCH_LIMIT)
        .build()
        .map_err(|error| complaint(&error))?;
    let regex = Arc::new(regex);
    patterns().remember(pattern, &regex);
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::fmt::Write;

    use super::*;

    fn sticky() -> Sticky {
        Sticky {
            cookie: Some("sessionid".into()),
            parameter: Some("sessionid".into()),
            extract: Extract::regex("!(.*)$").unwrap(),
            failover: true,
            issue: Some(issue()),
        }
    }

    fn issue() -> Issue {
        Issue {
            name: "gibbon".into(),
            path: "/".into(),
            same_site: SameSite::Lax,
            secure: false,
            http_only: true,
            max_age: None,
        }
    }

    fn cookie_headers(fields: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        headers
    }

    /// What a request names, with a `#` before Gibbon's own tokens.
    fn named(sticky: &Sticky, target: &str, cookies: &[&[u8]]) -> Vec<String> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let text = |wanted| match wanted {
            Wanted::Route(route) => String::from(route),
            Wanted::Issued(token) => format!("#{token}"),
        };
        sticky.wanted(path, query, &cookie_headers(cookies)).map(text).collect()
    }

    /// Routes named by a cookie field, the same by pattern and by separator.
    fn by_cookie(field: &str) -> Vec<String> {
        let by_separator = Sticky { extract: Extract::Separator("!".into()), ..sticky() };
        let routes = named(&sticky(), "/", &[field.as_bytes()]);
        assert_eq!(routes, named(&by_separator, "/", &[field.as_bytes()]), "{field}");
        routes
    }

    fn by_url(target: &str) -> Vec<String> {
        named(&sticky(), target, &[])
    }

    #[test]
    fn rules_with_the_same_pattern_share_it_and_what_nobody_has_is_let_go() {
        let pattern = |text: &str| match Extract::regex(text).unwrap() {
            Extract::Regex(regex, _) => regex,
            other => panic!("{other:?}"),
        };
        let one = pattern("shared(.)");
        assert!(Arc::ptr_eq(&one, &pattern("shared(.)")));
        assert!(!Arc::ptr_eq(&one, &pattern("shared(..)")));
        let mut patterns = Patterns { known: BTreeMap::new(), room: 0 };
        patterns.remember("one", &one);
        for number in 0..1000 {
            patterns.remember(&number.to_string(), &Arc::new(Regex::clone(&one)));
        }
        assert!(patterns.known.len() <= 18 && patterns.known.contains_key("one"));
    }

    #[test]
    fn the_route_is_what_follows_the_first_separator() {
        assert_eq!(by_cookie("sessionid=DATA!app2"), ["app2"]);
        assert_eq!(by_cookie("a=b; sessionid=DATA!app2; c=d"), ["app2"]);
        assert_eq!(by_cookie("a=b;sessionid=DATA!app2;c=d"), ["app2"]);
        assert_eq!(by_cookie("sessionid=!app2"), ["app2"]);
        assert_eq!(by_cookie("sessionid=a!b!app1"), ["b!app1"]);
        assert_eq!(by_cookie("sessionid=DATA!app9"), ["app9"]);
        assert_eq!(by_cookie("sessionid=DATA!APP1"), ["APP1"]);
    }

    #[test]
    fn a_value_without_a_route_names_nothing() {
        for value in ["DATA", "DATA!", "", "DATA.app1", "\"\"", "!"] {
            assert!(by_cookie(&format!("sessionid={value}")).is_empty(), "{value}");
        }
        assert!(by_cookie("sessionid").is_empty());
        assert!(by_cookie("").is_empty());
    }

    #[test]
    fn a_cookie_counts_by_its_exact_name() {
        for name in ["xsessionid", "sessionid2", "SessionID", "x= sessionid", "x sessionid"] {
            assert!(by_cookie(&format!("{name}=DATA!app1")).is_empty(), "{name}");
        }
        // Not a separator of cookies: the comma is part of a value.
        assert!(by_cookie("x=y, sessionid=DATA!app1").is_empty());
        assert_eq!(by_cookie("sessionid=D,A=T!app1"), ["app1"]);
    }

    #[test]
    fn quotes_and_spaces_around_a_value_do_not_matter() {
        assert_eq!(by_cookie("sessionid=\"DATA!app2\""), ["app2"]);
        assert_eq!(by_cookie("sessionid=DATA!app2 ; x=y"), ["app2"]);
        assert_eq!(by_cookie("x=y;\t sessionid = \"DATA!app2\" "), ["app2"]);
        assert_eq!(by_cookie("sessionid=DATA!\"app2"), ["\"app2"]);
    }

    #[test]
    fn a_cookie_is_not_percent_decoded() {
        assert!(by_cookie("sessionid=DATA%21app2").is_empty());
        assert_eq!(by_cookie("sessionid=DATA!app%32"), ["app%32"]);
    }

    #[test]
    fn of_two_cookies_the_first_with_a_route_comes_first() {
        assert_eq!(by_cookie("sessionid=DATA; sessionid=D!app2"), ["app2"]);
        assert_eq!(by_cookie("sessionid=D!app1; sessionid=D!app2"), ["app1", "app2"]);
    }

    #[test]
    fn several_cookie_fields_are_read_as_one() {
        let fields: [&[u8]; 3] = [b"a=b", b"sessionid=DATA!app1", b"c=d; sessionid=DATA!app2"];
        assert_eq!(named(&sticky(), "/", &fields), ["app1", "app2"]);
    }

    #[test]
    fn bytes_that_are_no_text_spoil_their_own_cookie_only() {
        let field: &[u8] = b"\xff=\xfe; sessionid=\xff!app1; sessionid=D!app2; x=\xc3";
        assert_eq!(named(&sticky(), "/", &[field]), ["app2"]);
    }

    #[test]
    fn a_path_parameter_counts_in_any_segment_and_ends_with_it() {
        assert_eq!(by_url("/a;sessionid=D!app2"), ["app2"]);
        assert_eq!(by_url("/a;sessionid=D!app2;x=y/b"), ["app2"]);
        assert_eq!(by_url("/a;x=y;sessionid=D!app2/b/c"), ["app2"]);
        assert_eq!(by_url("/;sessionid=D!app1/;sessionid=D!app2"), ["app1", "app2"]);
        for path in ["/sessionid=D!app2", "/a;xsessionid=D!app2", "/a;SESSIONID=D!app2"] {
            assert!(by_url(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_query_parameter_counts_by_its_whole_name() {
        assert_eq!(by_url("/?sessionid=D!app2"), ["app2"]);
        assert_eq!(by_url("/?x=y&sessionid=D!app2&z=1"), ["app2"]);
        for query in ["mysessionid=D!app2", "x=sessionid=D!app2", "x=y;sessionid=D!app2", "", "&"] {
            assert!(by_url(&format!("/?{query}")).is_empty(), "{query}");
        }
        assert_eq!(by_url("/?sessionid=D!app2;x=y"), ["app2;x=y"]);
    }

    #[test]
    fn a_value_in_a_url_is_percent_decoded() {
        assert_eq!(by_url("/a;sessionid=D%21app%32?sessionid=D%21app1"), ["app2", "app1"]);
        assert_eq!(by_url("/?sessionid=D!50%"), ["50%"]);
        assert_eq!(by_url("/?sessionid=D!50%2"), ["50%2"]);
        assert_eq!(by_url("/?sessionid=D!%+1%zz%C3%A4"), ["%+1%zzä"]);
        assert!(by_url("/?sessionid=D!%ff").is_empty());
    }

    #[test]
    fn only_what_was_encoded_is_copied() {
        let (sticky, headers) = (sticky(), HeaderMap::new());
        let wanted = sticky.wanted("/", Some("sessionid=D!app2&sessionid=D%21app2"), &headers);
        let owned: Vec<_> =
            wanted.map(|wanted| matches!(wanted, Wanted::Route(Cow::Owned(_)))).collect();
        assert_eq!(owned, [false, true]);
    }

    #[test]
    fn the_url_comes_before_the_cookie_and_does_not_hide_it() {
        let cookies: [&[u8]; 1] = [b"gibbon=0123; sessionid=D!app1"];
        let both = |target| named(&sticky(), target, &cookies);
        assert_eq!(both("/a;sessionid=D!app3?sessionid=D!app2"), ["app3", "app2", "app1", "#0123"]);
        assert_eq!(both("/?sessionid=D"), ["app1", "#0123"]);
        assert_eq!(both("/?sessionid=&z=1"), ["app1", "#0123"]);
        assert_eq!(both("/?sessionid=D!app9"), ["app9", "app1", "#0123"]);
    }

    #[test]
    fn what_is_not_configured_is_not_looked_at() {
        let nothing = Sticky { cookie: None, parameter: None, issue: None, ..sticky() };
        let cookies: [&[u8]; 1] = [b"gibbon=0123; sessionid=D!app1; =D!app2"];
        assert!(named(&nothing, "/;sessionid=D!app1?sessionid=D!app1", &cookies).is_empty());
    }

    #[test]
    fn a_group_named_route_comes_before_the_first() {
        let route = |pattern, value| {
            let extract = Extract::regex(pattern).unwrap();
            extract.route(value).map(str::to_owned)
        };
        assert_eq!(route("^(.)-(?<route>.+)$", "x-app1").as_deref(), Some("app1"));
        assert_eq!(route("(?P<other>a).(b)", "a-b").as_deref(), Some("a"));
        assert_eq!(route("app[0-9]", "xx-app1-yy").as_deref(), Some("app1"));
        assert_eq!(route("!([^!]*)$", "a!b!app1").as_deref(), Some("app1"));
        assert_eq!(route("x(a)?(b)", "xb"), None);
        assert_eq!(route("x*", "app1"), None);
        assert_eq!(route("!(.*)$", "DATA!"), None);
    }

    #[test]
    fn without_pattern_and_separator_the_whole_value_is_the_route() {
        assert_eq!(Extract::Whole.route("app1"), Some("app1"));
        assert_eq!(Extract::Whole.route(""), None);
        assert_eq!(Extract::Separator("::".into()).route("a:b::app::1"), Some("app::1"));
    }

    #[test]
    fn what_a_pattern_cannot_do_is_said_in_one_line() {
        let error = |pattern| Extract::regex(pattern).unwrap_err();
        assert!(error("a(?=b)").starts_with("look-around") && error("a(?=b)").contains("support"));
        assert!(error("(?<!b)a").contains("look-behind, is not supported"));
        assert_eq!(error(r"(a)\1"), "backreferences are not supported");
        assert_eq!(error("error: x\n(a"), "unclosed group");
        assert!(!error("!(.*").contains('\n'));
    }

    #[test]
    fn a_pattern_that_takes_too_much_memory_is_refused() {
        assert!(Extract::regex("(?:a{1000}){1000}").unwrap_err().contains("too large"));
        assert!(Extract::regex(r"\w{100}\w{100}\w{100}\w{100}").is_err());
        assert!(Extract::regex(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn an_issued_cookie_has_the_attributes_asked_for() {
        assert_eq!(issue().set_cookie("0f", false), "gibbon=0f; HttpOnly; SameSite=Lax; Path=/");
        let all = Issue {
            path: "/shop".into(),
            same_site: SameSite::None,
            secure: true,
            http_only: false,
            max_age: Some(Duration::from_hours(1)),
            ..issue()
        };
        let expected = "gibbon=0f; SameSite=None; Secure; Path=/shop; Max-Age=3600";
        assert_eq!(all.set_cookie("0f", false), expected);
        let strict = Issue { same_site: SameSite::Strict, ..issue() };
        assert!(strict.set_cookie("0f", false).to_str().unwrap().contains("SameSite=Strict"));
    }

    #[test]
    fn a_cookie_that_browsers_refuse_is_refused_first() {
        assert_eq!(issue().check(), Ok(()));
        let bad = [
            Issue { name: "".into(), ..issue() },
            Issue { name: "a;b".into(), ..issue() },
            Issue { path: "shop".into(), ..issue() },
            Issue { path: "/a; Domain=evil".into(), ..issue() },
            Issue { path: "/a\r\n".into(), ..issue() },
            Issue { same_site: SameSite::None, ..issue() },
            Issue { name: "__Secure-g".into(), ..issue() },
            Issue { name: "__Host-g".into(), secure: true, path: "/a".into(), ..issue() },
        ];
        for issue in bad {
            assert!(issue.check().is_err(), "{issue:?}");
        }
        let host = Issue { name: "__Host-g".into(), secure: true, ..issue() };
        assert_eq!(host.check(), Ok(()));
        assert_eq!(Issue { path: "/a\r\n".into(), ..issue() }.set_cookie("0f", false), "");
    }

    #[test]
    fn an_issued_cookie_that_comes_back_names_its_token() {
        let token = token("site", "app", "app1");
        let field = format!("x=y; gibbon={token}");
        assert_eq!(named(&sticky(), "/", &[field.as_bytes()]), [format!("#{token}")]);
        assert!(named(&sticky(), "/", &[b"gibbon=; gibbon=\"\""]).is_empty());
    }

    #[test]
    fn the_hash_is_siphash_2_4_as_published() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(key, &bytes), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key, &bytes[..8]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn a_token_never_changes_and_depends_on_every_part() {
        assert_eq!(token("site", "app", "app1"), "d4ddf6dfbc6ac6ef");
        let tokens = [
            token("site", "app", "app1"),
            token("site", "app", "app2"),
            token("site", "ap", "papp1"),
            token("sitea", "pp", "app1"),
            token("", "", ""),
        ];
        for (index, token) in tokens.iter().enumerate() {
            assert!(token.len() == 16 && !tokens[..index].contains(token), "{tokens:?}");
            assert!(token.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_is_a_panic(
            path in ".*",
            query in proptest::option::of(".*"),
            fields in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for field in &fields {
                if let Ok(value) = HeaderValue::from_bytes(field) {
                    headers.append(header::COOKIE, value);
                }
            }
            for extract in [Extract::Whole, Extract::Separator("!".into()), sticky().extract] {
                let sticky = Sticky { extract, ..sticky() };
                sticky.wanted(&path, query.as_deref(), &headers).for_each(drop);
            }
        }

        #[test]
        fn parts_that_look_like_sessions_are_no_panic_either(
            target in "[/;?&=%!a2é]{0,8}(;sessionid=|[?&]sessionid=)[/;?&=%!a2é]{0,12}",
            cookie in "[;=\"! ]{0,4}sessionid[;=\"! ]{0,6}[;=\"! a]{0,6}",
        ) {
            for route in named(&sticky(), &target, &[cookie.as_bytes()]) {
                prop_assert!(!route.is_empty());
            }
        }

        #[test]
        fn a_route_that_an_application_sets_is_found_again(
            data in "[^!\";\\s\\p{C}]{0,20}",
            route in "[^\";\\s\\p{C}]{1,20}",
            around in "[a-z=!]{0,6}",
        ) {
            let field = format!("{around}; sessionid={data}!{route}; {around}");
            for extract in [Extract::Separator("!".into()), sticky().extract] {
                let sticky = Sticky { extract, ..sticky() };
                prop_assert_eq!(named(&sticky, "/", &[field.as_bytes()]), [route.as_str()]);
            }
        }

        #[test]
        fn a_route_in_a_url_is_found_again_whatever_is_encoded(
            data in proptest::collection::vec(any::<char>(), 0..10),
            route in proptest::collection::vec(any::<char>(), 1..10),
        ) {
            let text: String = data.into_iter().filter(|c| *c != '!').collect();
            let route: String = route.into_iter().collect();
            let mut value = String::new();
            for byte in format!("{text}!{route}").bytes() {
                write!(value, "%{byte:02x}").unwrap();
            }
            let sticky = Sticky { extract: Extract::Separator("!".into()), ..sticky() };
            let target = format!("/a;sessionid={value}/b?sessionid={value}");
            prop_assert_eq!(named(&sticky, &target, &[]), [route.clone(), route]);
        }
    }
}
