//! Hosts and paths: what a request names, which prefix it matches, and the member's path for it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// A client's path with dot segments resolved, its percent-encoding untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'a> {
    sent: Cow<'a, str>,
    plain: Option<String>,
}

/// Why a path cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`.
    NotAbsolute,
    /// It has a `\`, which some servers take for `/`.
    Backslash,
    /// It has a control character or a space.
    Control,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "a path begins with /",
            Self::Backslash => "a path has no backslash; %5C is one",
            Self::Control => "a path has no control characters and no spaces",
        })
    }
}

impl std::error::Error for PathError {}

impl<'a> RequestPath<'a> {
    /// Resolves `.`, `..` and their encoded forms (RFC 3986, section 5.2.4).
    ///
    /// # Errors
    /// When the path cannot be told apart by all servers in the same way.
    pub fn resolve(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if raw.contains('\\') {
            return Err(PathError::Backslash);
        }
        if raw.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(PathError::Control);
        }
        let sent = without_dots(raw);
        let plain = plain(&sent);
        Ok(Self { sent, plain })
    }

    /// What a member makes of it that takes `%2F` and `%5C` for separators, if there are any.
    #[must_use]
    pub fn separated(&self) -> Option<String> {
        let plain = self.plain();
        let has = plain.contains('%') && (plain.contains("%2F") || plain.contains("%5C"));
        has.then(|| plain.replace("%2F", "/").replace("%5C", "/"))
    }

    /// What goes on to a member.
    #[must_use]
    pub fn sent(&self) -> &str {
        &self.sent
    }

    /// The same in one spelling, for matching: unreserved characters decoded, other escapes in
    /// capitals, several `/` as one. It has as many of those as [`RequestPath::sent`] has runs of
    /// them.
    #[must_use]
    pub fn plain(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.sent)
    }
}

fn without_dots(raw: &str) -> Cow<'_, str> {
    if !raw[1..].split('/').any(|segment| dots(segment).is_some()) {
        return Cow::Borrowed(raw);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in raw[1..].split('/') {
        open = true;
        match dots(segment) {
            Some(2) => drop(kept.pop()),
            Some(_) => {}
            None => {
                kept.push(segment);
                open = false;
            }
        }
    }
    let mut path = String::with_capacity(raw.len());
    for segment in kept {
        path.push('/');
        path.push_str(segment);
    }
    if open || path.is_empty() {
        path.push('/');
    }
    Cow::Owned(path)
}

/// How many dots a segment consists of: one or two, or it is no dot segment.
pub(crate) fn dots(segment: &str) -> Option<u8> {
    if segment.len() > 6 || segment.is_empty() {
        return None;
    }
    let mut rest = segment.as_bytes();
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return None,
        };
        count += 1;
    }
    (count <= 2).then_some(count)
}

/// Decodes unreserved characters and writes the other escapes in capitals (RFC 3986, section 6.2.2);
/// nothing if there is nothing to change.
fn plain(path: &str) -> Option<String> {
    if !path.contains('%') && !path.contains("//") {
        return None;
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let hex = rest.get(1..3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.map(|hex| (hex, unreserved(hex))) {
            Some((_, Some(character))) => plain.push(character),
            Some((hex, None)) => plain.extend(["%", &hex.to_ascii_uppercase()]),
            None => plain.push('%'),
        }
        rest = &rest[if hex.is_some() { 3 } else { 1 }..];
    }
    plain.push_str(rest);
    // Members take `//admin` for `/admin`, so the rules for `/admin` hold for both.
    let mut before = None;
    plain.retain(|c| !(before.replace(c) == Some('/') && c == '/'));
    (plain != path).then_some(plain)
}

/// The unreserved character (RFC 3986, section 2.3) that two hexadecimal digits stand for.
fn unreserved(hex: &str) -> Option<char> {
    let byte = u8::from_str_radix(hex, 16).ok()?;
    let free = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    free.then(|| char::from(byte))
}

/// A prefix of whole segments, or a path that is matched alone. A `/` at its end counts: `/static/`
/// does not match `/static`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    text: Box<str>,
    exact: bool,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.exact { f.write_str(" alone") } else { Ok(()) }
    }
}

impl Prefix {
    /// Reads a prefix.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` {why}, such as /static/"));
        if !text.starts_with('/') {
            return wrong("must begin with /");
        }
        if text.contains(['?', '#', '*', '\\']) {
            return wrong("must have none of ? # * \\");
        }
        if text.contains("//") {
            return wrong("must have no empty segment");
        }
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return wrong("must have no spaces, control characters or letters beyond ASCII");
        }
        let encoded = |(at, _): (usize, _)| {
            text.get(at + 1..at + 3).is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        if !text.match_indices('%').all(encoded) {
            return wrong("must have two hexadecimal digits after each %");
        }
        match RequestPath::resolve(text) {
            Ok(path) if path.sent() == text => Ok(Self { text: path.plain().into(), exact: false }),
            _ => wrong("must have no . or .. segments"),
        }
    }

    /// The same path, without what is below it.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { exact: true, ..self }
    }

    /// Whether it is matched alone.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.exact
    }

    /// The prefix in the spelling of [`RequestPath::plain`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn trimmed(&self) -> &str {
        self.text.strip_suffix('/').unwrap_or(&self.text)
    }

    /// What follows the prefix without its last `/`, in the bytes that are sent: nothing, or text
    /// that begins with `/`. None if the path does not match.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p RequestPath<'_>) -> Option<&'p str> {
        if self.exact {
            return (path.plain() == &*self.text).then_some("");
        }
        let after = path.plain().strip_prefix(self.trimmed())?;
        let whole = after.starts_with('/') || (after.is_empty() && !self.text.ends_with('/'));
        if !whole {
            return None;
        }
        if path.plain.is_none() {
            return Some(after);
        }
        let segments = self.trimmed().matches('/').count();
        let at = runs(path.sent()).nth(segments).unwrap_or(path.sent().len());
        Some(&path.sent()[at..])
    }

    /// The public path for a rest: the way back from [`Prefix::rest`].
    #[must_use]
    pub fn public(&self, rest: &str) -> String {
        if rest.is_empty() || (self.exact && rest == "/") {
            return self.text.to_string();
        }
        join(self.trimmed(), rest).into_owned()
    }

    /// The path at a member that serves this at `member_path`, for a rest.
    #[must_use]
    pub fn at_member<'a>(&self, member_path: &'a str, rest: &'a str) -> Cow<'a, str> {
        match (self.exact, member_path) {
            (true, "") => Cow::Borrowed("/"),
            (true, whole) => Cow::Borrowed(whole),
            (false, _) => join(member_path, rest),
        }
    }
}

/// Where each run of `/` begins.
fn runs(path: &str) -> impl Iterator<Item = usize> {
    let begins = |at: &usize| !path[..*at].ends_with('/');
    path.match_indices('/').map(|(at, _)| at).filter(begins)
}

/// The member's path with a rest: exactly one `/` at the seam.
#[must_use]
pub fn join<'a>(member_path: &'a str, rest: &'a str) -> Cow<'a, str> {
    let base = member_path.trim_end_matches('/');
    let below = rest.trim_start_matches('/');
    match (base.is_empty(), rest.is_empty()) {
        (true, true) => Cow::Borrowed("/"),
        (true, false) => Cow::Borrowed(&rest[rest.len() - below.len() - 1..]),
        (false, true) => Cow::Borrowed(base),
        (false, false) => Cow::Owned(format!("{base}/{below}")),
    }
}

/// What follows the member's path, if `path` lies under it at the boundary of a segment.
#[must_use]
pub fn unjoin<'p>(member_path: &str, path: &'p str) -> Option<&'p str> {
    let after = path.strip_prefix(member_path.trim_end_matches('/'))?;
    (after.is_empty() || after.starts_with('/')).then_some(after)
}

/// All prefixes of at most `deepest` slashes that match a path, longest first:
/// `/a/b` gives `/a/b`, `/a/`, `/a`, `/`.
pub fn candidates(plain: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let bytes = plain.as_bytes();
    let end = plain.match_indices('/').nth(deepest).map_or(plain.len(), |(at, _)| at);
    let boundary =
        move |at: &usize| bytes[at - 1] == b'/' || bytes.get(*at).is_none_or(|b| *b == b'/');
    (1..=end).rev().filter(boundary).map(|at| &plain[..at])
}

/// The hosts that a rule serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This one, in lower case.
    Exact(Box<str>),
    /// Those that end so, with one label or more before: `.site.com`.
    Wildcard(Box<str>),
}

impl HostPattern {
    /// Reads an exact name or a `*.` wildcard.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Exact(address_host(address).into()));
        }
        let (wild, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if !is_name(rest) {
            return Err(format!(
                "`{text}` is no host: give a name such as www.site.com, or *.site.com, without \
                 scheme, port and path"
            ));
        }
        Ok(if wild { Self::Wildcard(format!(".{rest}").into()) } else { Self::Exact(rest.into()) })
    }
}

impl HostPattern {
    /// Whether it covers a host (lower case, no port).
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => wildcard_suffixes(host).any(|end| *end == **suffix),
        }
    }

    /// What orders the patterns of one host: the more specific is the greater.
    #[must_use]
    pub const fn precision(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Wildcard(suffix) => suffix.len(),
            Self::Exact(_) => usize::MAX,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn address_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The authority has no host that could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedHost;

impl fmt::Display for MalformedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host is a name or an address, with or without a port")
    }
}

impl std::error::Error for MalformedHost {}

/// The host of an authority in lower case, without port and without a dot at its end.
///
/// # Errors
/// When it is malformed.
pub fn host_of(authority: &str) -> Result<Cow<'_, str>, MalformedHost> {
    if is_plain_name(authority) {
        return Ok(Cow::Borrowed(authority));
    }
    let (host, port) = split_port(authority)?;
    if !port.is_empty()
        && (port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(MalformedHost);
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(MalformedHost)?;
        let address = inner.parse::<std::net::Ipv6Addr>().map_err(|_| MalformedHost)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if !is_host(host) {
        return Err(MalformedHost);
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

/// Whether it is already what is looked for, as most are.
fn is_plain_name(authority: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let bytes = authority.as_bytes();
    (1..=253).contains(&bytes.len())
        && bytes.last() != Some(&b'.')
        && bytes.iter().all(|byte| fits(*byte))
}

fn split_port(authority: &str) -> Result<(&str, &str), MalformedHost> {
    let from = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[from..].split_once(':') {
        Some((before, _)) if from > 0 && !before.is_empty() => Err(MalformedHost),
        Some((before, port)) => Ok((&authority[..from + before.len()], port)),
        None => Ok((authority, "")),
    }
}

/// What a client may write for a host: more than a name in DNS, but nothing that is a delimiter.
fn is_host(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(fits)
}

/// The suffixes of a host that a wildcard may have, longest first; an address has none.
pub fn wildcard_suffixes(host: &str) -> impl Iterator<Item = &str> {
    // Only when it is asked for the first: an exact host needs none.
    let suffixes = move || {
        let address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
        let host = if address { "" } else { host };
        host.match_indices('.').map(move |(at, _)| &host[at..])
    };
    std::iter::once_with(suffixes).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(raw: &str) -> String {
        RequestPath::resolve(raw).unwrap().sent().to_owned()
    }

    fn rest(prefix: &str, path: &str) -> Option<String> {
        let path = RequestPath::resolve(path).unwrap();
        Prefix::parse(prefix).unwrap().rest(&path).map(str::to_owned)
    }

    fn mapped(prefix: &str, member: &str, path: &str) -> Option<String> {
        Some(join(member, &rest(prefix, path)?).into_owned())
    }

    #[test]
    fn dot_segments_are_resolved_however_they_are_written() {
        for (raw, resolved) in [
            ("/static/../secret", "/secret"),
            ("/static/%2e%2E/secret", "/secret"),
            ("/static/.%2e/secret", "/secret"),
            ("/static/%2e/a", "/static/a"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/../../x", "/x"),
            ("/a//../b", "/a/b"),
            ("/..a/...", "/..a/..."),
            ("/a%2F..%2Fb", "/a%2F..%2Fb"),
        ] {
            assert_eq!(sent(raw), resolved, "{raw}");
        }
    }

    #[test]
    fn what_is_no_dot_segment_goes_on_byte_for_byte() {
        for raw in ["/a%2Fb", "/a%20b|[c];x=1", "/%zz", "/a%", "//a//b", "/%e4%B8/é", "/a%5Cb"] {
            assert_eq!(sent(raw), raw);
        }
    }

    #[test]
    fn several_slashes_match_as_one_and_go_on_as_they_are() {
        assert_eq!(rest("/static/", "//static///a//b").as_deref(), Some("///a//b"));
        assert_eq!(mapped("/static/", "/media/", "//static//a//b").as_deref(), Some("/media/a//b"));
        assert_eq!(mapped("/", "/", "//a//b").as_deref(), Some("/a//b"));
        assert_eq!(rest("/a/b", "/a//b").as_deref(), Some(""));
        assert_eq!(rest("/a/b", "/a%2F/b"), None);
    }

    #[test]
    fn paths_that_servers_understand_differently_are_refused() {
        assert_eq!(RequestPath::resolve("a"), Err(PathError::NotAbsolute));
        assert_eq!(RequestPath::resolve("/a\\b"), Err(PathError::Backslash));
        assert_eq!(RequestPath::resolve("/a\tb"), Err(PathError::Control));
    }

    #[test]
    fn a_prefix_matches_whole_segments_and_its_last_slash_counts() {
        assert_eq!(rest("/ex", "/ex").as_deref(), Some(""));
        assert_eq!(rest("/ex", "/ex/a").as_deref(), Some("/a"));
        assert_eq!(rest("/ex", "/example"), None);
        assert_eq!(rest("/static/", "/static"), None);
        assert_eq!(rest("/static/", "/static/").as_deref(), Some("/"));
        assert_eq!(rest("/static/", "/STATIC/a"), None);
        assert_eq!(rest("/", "/a").as_deref(), Some("/a"));
    }

    #[test]
    fn matching_decodes_unreserved_characters_and_sends_them_as_they_came() {
        assert_eq!(rest("/static/", "/%73tatic/%61%2Fb").as_deref(), Some("/%61%2Fb"));
        assert_eq!(rest("/a%2fb/", "/a%2Fb/c").as_deref(), Some("/c"));
        assert_eq!(rest("/a%2Fb/", "/a%2fb/c%2fd").as_deref(), Some("/c%2fd"));
        assert_eq!(rest("/a", "/a%zz"), None);
        assert_eq!(rest("/a", "/a%2Fb"), None);
    }

    #[test]
    fn there_is_one_slash_at_the_seam() {
        for (prefix, member, path, target) in [
            ("/static/", "/media/", "/static/a.png", "/media/a.png"),
            ("/static/", "/media", "/static/a.png", "/media/a.png"),
            ("/static", "/media/", "/static/a.png", "/media/a.png"),
            ("/static", "/media/", "/static", "/media"),
            ("/static/", "/media/", "/static/", "/media/"),
            ("/static/", "/media/", "/static//a", "/media/a"),
            ("/static/", "/", "/static/css/x", "/css/x"),
            ("/static", "/", "/static", "/"),
            ("/", "/", "/", "/"),
            ("/", "/app/", "/x/y/", "/app/x/y/"),
            ("/", "/", "//evil.org/x", "/evil.org/x"),
        ] {
            assert_eq!(mapped(prefix, member, path).as_deref(), Some(target), "{prefix} {path}");
        }
    }

    #[test]
    fn the_way_back_ends_at_a_segment() {
        assert_eq!(unjoin("/media/", "/media/x"), Some("/x"));
        assert_eq!(unjoin("/media", "/media"), Some(""));
        assert_eq!(unjoin("/media/", "/mediax"), None);
        assert_eq!(unjoin("/", "/x"), Some("/x"));
        let prefix = Prefix::parse("/static/").unwrap();
        assert_eq!(prefix.public("/x"), "/static/x");
        assert_eq!(prefix.public(""), "/static/");
        assert_eq!(Prefix::parse("/").unwrap().public("/x"), "/x");
    }

    #[test]
    fn encoded_separators_are_found_however_they_are_written() {
        let separated = |text| RequestPath::resolve(text).unwrap().separated();
        for (text, expected) in [
            ("/a%2fb", Some("/a/b")),
            ("/a%5C..%2Fb", Some("/a/../b")),
            ("/a%252Fb", None),
            ("/a%20b", None),
            ("/a//b", None),
            ("/a", None),
        ] {
            assert_eq!(separated(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_path_alone_is_the_members_path_as_it_stands() {
        let path = |text| RequestPath::resolve(text).unwrap();
        let alone = Prefix::parse("/a/").unwrap().alone();
        assert_eq!((alone.rest(&path("/a/")), alone.rest(&path("/a/b"))), (Some(""), None));
        for (member, target) in [("/m/", "/m/"), ("/m", "/m"), ("/", "/"), ("", "/")] {
            assert_eq!(alone.at_member(member, ""), target);
        }
        assert_eq!((alone.public(""), alone.public("/")), ("/a/".to_owned(), "/a/".to_owned()));
        assert_eq!(alone.to_string(), "/a/ alone");
    }

    #[test]
    fn a_prefix_that_cannot_match_is_refused() {
        for (text, why) in [
            ("static/", "begin with /"),
            ("/a?b", "none of"),
            ("/a*", "none of"),
            ("/a//b", "empty segment"),
            ("/a/../b", "no . or .."),
            ("/a/%2e", "no . or .."),
            ("/a b", "no spaces"),
            ("/%zz", "two hexadecimal digits"),
        ] {
            let error = Prefix::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("/static/"), "{text}: {error}");
        }
    }

    #[test]
    fn candidates_come_longest_first() {
        let all = |path, deepest| candidates(path, deepest).collect::<Vec<_>>();
        assert_eq!(all("/a/b/c", 9), ["/a/b/c", "/a/b/", "/a/b", "/a/", "/a", "/"]);
        assert_eq!(all("/a/b/", 9), ["/a/b/", "/a/b", "/a/", "/a", "/"]);
        assert_eq!(all("/", 9), ["/"]);
        assert_eq!(all("/a/b/c/d", 2), ["/a/b", "/a/", "/a", "/"]);
        assert_eq!(all("/a/b/", 2), ["/a/b", "/a/", "/a", "/"]);
        assert_eq!(all("//x", 9), ["//x", "//", "/"]);
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_last_dot() {
        for (authority, host) in [
            ("WWW.site.com:8080", "www.site.com"),
            ("www.site.com.", "www.site.com"),
            ("www.site.com:", "www.site.com"),
            ("[::1]:80", "[::1]"),
            ("[0:0::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(host_of(authority).unwrap(), host);
        }
        for authority in
            ["", ":80", "a b", "a/b", "u@h", "h:99999", "h:x", "a:1:2", "[::1", "[::1]x:1", "h:+1"]
        {
            assert_eq!(host_of(authority), Err(MalformedHost), "{authority}");
        }
    }

    #[test]
    fn host_patterns_are_names_wildcards_or_addresses() {
        let parse = |text: &str| HostPattern::parse(text).map(|host| host.to_string());
        assert_eq!(parse("WWW.Site.com.").unwrap(), "www.site.com");
        assert_eq!(parse("*.site.com").unwrap(), "*.site.com");
        assert_eq!(parse("::1").unwrap(), "[::1]");
        for text in
            ["", "*", "*x.com", "a.*.com", "a..b", "http://a", "a:80", "a/b", "-a.com", "a b"]
        {
            assert!(parse(text).unwrap_err().contains("www.site.com"), "{text}");
        }
    }

    #[test]
    fn wildcards_are_tried_longest_first_and_never_for_addresses() {
        let all = |host| wildcard_suffixes(host).collect::<Vec<_>>();
        assert_eq!(all("a.b.site.com"), [".b.site.com", ".site.com", ".com"]);
        assert!(all("127.0.0.1").is_empty());
        assert!(all("[::1]").is_empty());
    }

    fn segments() -> impl Strategy<Value = String> {
        "(/[a-z0-9%~._-]{0,4}){0,4}/?"
            .prop_map(|path| if path.starts_with('/') { path } else { "/".into() })
    }

    proptest! {
        #[test]
        fn any_path_maps_without_a_doubled_or_lost_slash(
            prefix in "(/[a-z]{1,3}){0,3}/?",
            member in "(/[a-z]{1,3}){0,3}/?",
            rest in "(/[a-z0-9._-]{1,4}){0,3}/?",
        ) {
            let prefix = if prefix.is_empty() { "/".to_owned() } else { prefix };
            let member = if member.is_empty() { "/".to_owned() } else { member };
            let path = format!("{}{rest}", prefix.trim_end_matches('/'));
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let request = RequestPath::resolve(&path).unwrap();
            let parsed = Prefix::parse(&prefix).unwrap();
            if let Some(rest) = parsed.rest(&request) {
                let target = join(&member, rest);
                prop_assert!(!target.contains("//"), "{target}");
                prop_assert!(target.starts_with('/'));
                prop_assert_eq!(unjoin(&member, &target).unwrap().trim_start_matches('/'), rest.trim_start_matches('/'));
                let slash = target.ends_with('/') && (&*target != "/" || !rest.is_empty());
                prop_assert_eq!(request.sent().ends_with('/'), slash);
            }
        }

        #[test]
        fn resolving_twice_is_resolving_once(raw in "(/(\\.|%2e|%2E|[a-z%]){0,3}){1,6}") {
            let once = sent(&raw);
            prop_assert_eq!(sent(&once), once.clone());
            prop_assert!(once.split('/').all(|segment| dots(segment).is_none()), "{once}");
        }

        #[test]
        fn no_path_panics_and_the_rest_is_a_part_of_it(raw in "/\\PC{0,30}", prefix in segments()) {
            if let (Ok(path), Ok(prefix)) = (RequestPath::resolve(&raw), Prefix::parse(&prefix)) {
                prop_assert_eq!(runs(path.sent()).count(), path.plain().matches('/').count());
                if let Some(rest) = prefix.rest(&path) {
                    prop_assert!(path.sent().ends_with(rest));
                    prop_assert!(candidates(path.plain(), 99).any(|found| found == prefix.as_str()));
                }
            }
        }
    }
}
