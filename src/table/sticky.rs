//! Cookie, path parameter or query → the member that a session wants, as the application names it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use cookie::Cookie;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled `routeRegex` may take.
const REGEX_SIZE: usize = 1 << 20;

/// Finds the route in a session's value.
#[derive(Clone, Debug)]
pub enum Extract {
    /// The group of a match, by index.
    Regex(Regex, usize),
    /// What follows the first such text.
    Separator(Box<str>),
    /// All of it.
    Whole,
}

impl Extract {
    /// By a regular expression that is searched, not anchored: the group named `route`, else the
    /// first group, else the whole match.
    ///
    /// # Errors
    /// When it does not compile, or is too large.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_SIZE)
            .build()
            .map_err(|error| refusal(pattern, &error))?;
        let named = regex.capture_names().position(|name| name == Some("route"));
        let group = named.unwrap_or_else(|| usize::from(regex.captures_len() > 1));
        Ok(Self::Regex(regex, group))
    }

    /// The route in a value; an empty one is none.
    #[must_use]
    pub fn route<'v>(&self, value: &'v str) -> Option<&'v str> {
        let route = match self {
            Self::Regex(regex, group) => regex.captures(value)?.get(*group)?.as_str(),
            Self::Separator(separator) => value.split_once(&**separator)?.1,
            Self::Whole => value,
        };
        (!route.is_empty()).then_some(route)
    }
}

fn refusal(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    format!("`{pattern}` is no regular expression that can be used: {reason}")
}

/// Where a request names its member.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The application's cookie.
    pub cookie: Option<Box<str>>,
    /// A parameter of the path or the query.
    pub parameter: Option<Box<str>>,
    /// How the route is found in either.
    pub extract: Extract,
    /// Whether another member may serve when the session's own cannot.
    pub failover: bool,
    /// A cookie of Gibbon's own, for applications that have none.
    pub issue: Option<Issue>,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'r> {
    /// A member by the route that the application named.
    Route(Cow<'r, str>),
    /// A member by the value of Gibbon's own cookie.
    Issued(&'r str),
}

impl Sticky {
    /// All that the request names, most preferred first: path, query, the application's cookie,
    /// Gibbon's own. The caller takes the first that is known, so that a URL without a usable
    /// route does not hide a good cookie.
    pub fn wanted<'r>(
        &'r self,
        path: &'r str,
        query: Option<&'r str>,
        headers: &'r HeaderMap,
    ) -> impl Iterator<Item = Wanted<'r>> + 'r {
        let name = self.parameter.as_deref();
        let in_path = name.into_iter().flat_map(move |name| in_path(path, name));
        let in_query = name.zip(query).into_iter().flat_map(|(name, query)| in_query(query, name));
        let in_url = in_path.chain(in_query).filter_map(|value| self.decoded_route(value));
        let in_cookie = self.cookie.iter().flat_map(|name| cookies(headers, name));
        let in_cookie = in_cookie.filter_map(|value| self.extract.route(value)).map(Cow::Borrowed);
        let own = self.issue.iter().flat_map(|issue| cookies(headers, &issue.name));
        in_url.chain(in_cookie).map(Wanted::Route).chain(own.map(Wanted::Issued))
    }

    fn decoded_route<'v>(&self, value: &'v str) -> Option<Cow<'v, str>> {
        match decode(value)? {
            Cow::Borrowed(value) => self.extract.route(value).map(Cow::Borrowed),
            Cow::Owned(value) => self.extract.route(&value).map(|r| Cow::Owned(r.to_owned())),
        }
    }
}

/// The values of `;name=value` in any segment.
fn in_path<'r>(path: &'r str, name: &'r str) -> impl Iterator<Item = &'r str> {
    let parameters = path.split('/').flat_map(|segment| segment.split(';').skip(1));
    parameters.filter_map(move |parameter| named(parameter, name))
}

/// The values of `name=value` among the query's pairs.
fn in_query<'r>(query: &'r str, name: &'r str) -> impl Iterator<Item = &'r str> {
    query.split('&').filter_map(move |pair| named(pair, name))
}

fn named<'r>(pair: &'r str, name: &str) -> Option<&'r str> {
    pair.strip_prefix(name)?.strip_prefix('=')
}

/// Undoes percent-encoding; nothing if that gives no text.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The values of the cookies with exactly this name, over all Cookie fields. Spaces around name
/// and value, and quotes around the value, do not count.
fn cookies<'r>(headers: &'r HeaderMap, name: &'r str) -> impl Iterator<Item = &'r str> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|f| f.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        if pair[..equals].trim_ascii() != name.as_bytes() {
            return None;
        }
        let value = std::str::from_utf8(pair[equals + 1..].trim_ascii()).ok()?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(quoted.unwrap_or(value))
    })
}

/// Which sites may make a browser send a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// This one only.
    Strict,
    /// Others by links only.
    #[default]
    Lax,
    /// Any.
    None,
}

/// A cookie of Gibbon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its name.
    pub name: Box<str>,
    /// The path that it holds for.
    pub path: Box<str>,
    /// Which sites may make a browser send it.
    pub same_site: SameSite,
    /// Whether it is sent over TLS only.
    pub secure: bool,
    /// Whether it is hidden from scripts.
    pub http_only: bool,
    /// How long it is kept; until the browser ends, if not given.
    pub max_age: Option<Duration>,
}

impl Issue {
    /// The field that makes a client's session stay with the member of this token.
    #[must_use]
    pub fn set_cookie(&self, token: &str) -> HeaderValue {
        let same_site = match self.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        };
        let mut cookie = Cookie::build((&*self.name, token))
            .path(&*self.path)
            .same_site(same_site)
            .secure(self.secure)
            .http_only(self.http_only)
            .build();
        let age = self.max_age.and_then(|age| cookie::time::Duration::try_from(age).ok());
        cookie.set_max_age(age);
        // The name and the path were checked when the rule was read.
        HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

/// The value of the cookie for a member: the same on all replicas, and naming nobody.
#[must_use]
pub fn token(namespace: &str, name: &str, route: &str) -> String {
    let mut hash = Fnv::default();
    for part in [namespace, name, route] {
        hash.add(part.as_bytes());
        hash.add(&[0xff]);
    }
    hash.to_string()
}

/// FNV-1a with 128 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): stable for ever, and
/// without a key, for it separates members and protects nothing.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u128::from(*byte);
            self.0 = self.0.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

impl fmt::Display for Fnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folded = (self.0 >> 64) as u64 ^ self.0 as u64;
        write!(f, "{folded:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky() -> Sticky {
        Sticky {
            cookie: Some("sessionid".into()),
            parameter: Some("sessionid".into()),
            extract: Extract::regex("!(.*)$").unwrap(),
            failover: true,
            issue: None,
        }
    }

    fn wanted(target: &str, cookies: &[&str]) -> Vec<String> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        }
        let sticky = sticky();
        let wanted = sticky.wanted(path, query, &headers).map(|wanted| match wanted {
            Wanted::Route(route) => route.into_owned(),
            Wanted::Issued(token) => token.to_owned(),
        });
        wanted.collect()
    }

    #[test]
    fn the_route_is_found_in_the_applications_cookie() {
        for cookie in [
            "sessionid=DATA!app2",
            "a=b; sessionid=DATA!app2; c=d",
            "sessionid=!app2",
            "sessionid=\"DATA!app2\"",
            "sessionid=DATA!app2 ; x=y",
            "sessionid = DATA!app2",
        ] {
            assert_eq!(wanted("/", &[cookie]), ["app2"], "{cookie}");
        }
    }

    #[test]
    fn a_value_without_a_route_wants_nothing() {
        for cookie in ["sessionid=DATA", "sessionid=DATA!", "sessionid=", "sessionid=DATA.app1", ""] {
            assert!(wanted("/", &[cookie]).is_empty(), "{cookie}");
        }
    }

    #[test]
    fn other_names_do_not_count() {
        for cookie in [
            "xsessionid=D!app1",
            "sessionid2=D!app1",
            "SessionID=D!app1",
            "x= sessionid=D!app1",
            "x=sessionid=D!app1",
        ] {
            assert!(wanted("/", &[cookie]).is_empty(), "{cookie}");
        }
        assert!(wanted("/?mysessionid=D!app2", &[]).is_empty());
        assert!(wanted("/?x=sessionid=D!app2", &[]).is_empty());
        assert!(wanted("/;mysessionid=D!app2", &[]).is_empty());
    }

    #[test]
    fn the_first_separator_counts_and_unknown_routes_are_passed_on() {
        assert_eq!(wanted("/", &["sessionid=a!b!app1"]), ["b!app1"]);
        assert_eq!(wanted("/", &["sessionid=D!APP1"]), ["APP1"]);
        let dot = Extract::Separator(".".into());
        assert_eq!(dot.route("A1.app1.x"), Some("app1.x"));
        assert_eq!(dot.route("A1"), None);
        assert_eq!(Extract::Whole.route("app1"), Some("app1"));
    }

    #[test]
    fn the_url_comes_before_the_cookie_and_does_not_hide_it() {
        assert_eq!(wanted("/?sessionid=D!app2", &["sessionid=D!app1"]), ["app2", "app1"]);
        assert_eq!(wanted("/?sessionid=D", &["sessionid=D!app1"]), ["app1"]);
        assert_eq!(wanted("/a;sessionid=D!app2/b?sessionid=D!app3", &[]), ["app2", "app3"]);
        assert_eq!(wanted("/a;x=1;sessionid=D!app2;y=2", &[]), ["app2"]);
    }

    #[test]
    fn url_values_are_decoded_and_cookies_are_not() {
        assert_eq!(wanted("/?sessionid=D%21app2", &[]), ["app2"]);
        assert_eq!(wanted("/?sessionid=D!%", &[]), ["%"]);
        assert!(wanted("/?sessionid=D!%ff", &[]).is_empty());
        assert!(wanted("/", &["sessionid=D%21app2"]).is_empty());
    }

    #[test]
    fn several_cookie_fields_and_odd_bytes_beside_do_not_hide_a_session() {
        assert_eq!(wanted("/", &["a=b", "sessionid=D!app2"]), ["app2"]);
        assert_eq!(wanted("/", &["sessionid=D; sessionid=D!app2"]), ["app2"]);
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_bytes(b"x=\xff; sessionid=D!app2").unwrap());
        let sticky = sticky();
        assert_eq!(sticky.wanted("/", None, &headers).count(), 1);
    }

    #[test]
    fn the_group_named_route_comes_first_then_the_first_then_the_match() {
        let route = |pattern: &str| Extract::regex(pattern).unwrap().route("ab!app1").map(str::to_owned);
        assert_eq!(route("(a)b!(?<route>.*)").as_deref(), Some("app1"));
        assert_eq!(route("(a)b!(.*)").as_deref(), Some("a"));
        assert_eq!(route("app.").as_deref(), Some("app1"));
        assert_eq!(route("!(x*)"), None);
    }

    #[test]
    fn a_regex_that_cannot_be_used_says_why() {
        let look_around = Extract::regex("(?=x)").unwrap_err();
        assert!(look_around.contains("look-around"), "{look_around}");
        let large = Extract::regex(r"(\w{500}){500}").unwrap_err();
        assert!(large.contains("size limit"), "{large}");
    }

    #[test]
    fn the_token_is_stable_and_names_nobody() {
        assert_eq!(token("site", "app", "app1"), token("site", "app", "app1"));
        assert_ne!(token("site", "app", "app1"), token("site", "app", "app2"));
        assert_ne!(token("site", "ap", "papp1"), token("site", "app", "app1"));
        assert_eq!(token("", "", "").len(), 16);
    }

    #[test]
    fn the_issued_cookie_has_what_was_asked_for() {
        let issue = Issue {
            name: "gibbon".into(),
            path: "/app/".into(),
            same_site: SameSite::None,
            secure: true,
            http_only: true,
            max_age: Some(Duration::from_secs(3600)),
        };
        let value = issue.set_cookie("0123");
        let text = value.to_str().unwrap();
        for part in ["gibbon=0123", "Path=/app/", "SameSite=None", "Secure", "HttpOnly", "Max-Age=3600"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_issued_cookie_is_read_after_the_applications() {
        let issue = Issue {
            name: "own".into(),
            path: "/".into(),
            same_site: SameSite::Lax,
            secure: false,
            http_only: true,
            max_age: None,
        };
        let sticky = Sticky { issue: Some(issue), ..sticky() };
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("own=abc; sessionid=D!app1"));
        let wanted: Vec<_> = sticky.wanted("/", None, &headers).collect();
        assert_eq!(wanted, [Wanted::Route("app1".into()), Wanted::Issued("abc")]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_sends_panics(path in ".*", query in ".*", cookie in ".*") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(cookie.as_bytes()) {
                headers.insert(COOKIE, value);
            }
            let sticky = sticky();
            let _count = sticky.wanted(&path, Some(&query), &headers).count();
        }

        #[test]
        fn a_route_that_was_set_is_found_again(data in "[a-zA-Z0-9+/=]*", route in "[a-z0-9.-]{1,20}") {
            let found = wanted("/", &[&format!("sessionid={data}!{route}")]);
            proptest::prop_assert_eq!(found, [route]);
        }
    }
}
