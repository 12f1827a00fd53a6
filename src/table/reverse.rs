//! What members say of their own address, turned into the address that clients know.
//!
//! URLs are compared by their parts, never as text: `http://app1.site.com:80/login` is the member
//! `http://app1.site.com/`, and `http://app1.site.com.evil.org/` is not.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, REFRESH, SET_COOKIE,
};

use super::access::Barred;
use super::path::{self, HostPattern, Prefix};
use super::{Backends, Host, ServicePort};

const DESTINATION: HeaderName = HeaderName::from_static("destination");
const URI: HeaderName = HeaderName::from_static("uri");

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The port that a URL of this scheme has if it names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Scheme, host in lower case (IPv6 in brackets) and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// The base URLs that the members of one entry may write themselves.
#[derive(Clone, Debug)]
pub struct Base {
    /// Their scheme.
    pub scheme: Scheme,
    /// Their hosts and ports.
    pub place: Place,
    /// The path under which they serve.
    pub path: Arc<str>,
}

/// Hosts with their ports.
#[derive(Clone, Debug)]
pub enum Place {
    /// A URL's.
    Url(Host, u16),
    /// The names in DNS of a Service, and the addresses of its endpoints.
    Service(ServicePort, Arc<Backends>),
}

impl Place {
    /// Whether a host is one of these, at this port if one is given. Endpoints at addresses that are
    /// barred are nobody's.
    fn has(&self, host: &str, at: Option<u16>, barred: &Barred) -> bool {
        let is = |own: u16| at.is_none_or(|at| at == own);
        match self {
            Self::Url(Host::Name(name), port) => **name == *host && is(*port),
            Self::Url(Host::Address(ip), port) => address_of(host) == Some(*ip) && is(*port),
            Self::Service(service, backends) => match address_of(host) {
                Some(ip) => {
                    let mut ports = backends.at(ip).iter().map(|endpoint| endpoint.address.port());
                    ports.any(is) && !barred.bars(ip)
                }
                None => backends.port.is_some_and(is) && service.is_named(host),
            },
        }
    }
}

impl ServicePort {
    /// Whether it is a name of the Service in DNS.
    fn is_named(&self, host: &str) -> bool {
        let Some(rest) = host.strip_prefix(&*self.name) else { return false };
        let domain = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(&*self.namespace));
        rest.is_empty() || matches!(domain, Some("" | ".svc" | ".svc.cluster.local"))
    }
}

/// The address that stands as a host, IPv6 in brackets.
fn address_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None if host.starts_with(|c: char| c.is_ascii_digit()) => host.parse().ok().map(IpAddr::V4),
        None => None,
    }
}

/// How the client addressed the site.
#[derive(Clone, Copy, Debug)]
pub struct Public<'a> {
    /// The scheme that it used.
    pub scheme: Scheme,
    /// Host and port as it wrote them.
    pub authority: &'a str,
}

impl<'a> Public<'a> {
    /// What a rule says of the site counts more.
    #[must_use]
    pub fn as_said(self, rules: Option<&'a Rules>) -> Self {
        Self {
            scheme: rules.and_then(|rules| rules.scheme).unwrap_or(self.scheme),
            authority: rules.and_then(|rules| rules.host.as_deref()).unwrap_or(self.authority),
        }
    }

    fn host(&self) -> Cow<'_, str> {
        path::host_of(self.authority).unwrap_or_default()
    }

    /// The URL of a path; the path alone for a client that named no host, as HTTP/1.0 may.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        if self.authority.is_empty() {
            return path.to_owned();
        }
        // In the one spelling that caches and cookies know: small letters, no dot at the end.
        let host = self.host();
        let port = self.authority.rsplit_once(':').map_or("", |(_, port)| port);
        if host.is_empty() {
            format!("{}://{}{path}", self.scheme, self.authority)
        } else if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{}://{host}:{port}{path}", self.scheme)
        } else {
            format!("{}://{host}{path}", self.scheme)
        }
    }

    /// Whether a URL names this host and port, by either scheme.
    fn names(&self, url: &Url<'_>) -> bool {
        let port = self.authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(port)) => url.host == self.host() && url.port.unwrap_or(port) == port,
            _ => url.host == self.host() && url.default_port(),
        }
    }
}

/// A URL taken apart; `tail` is query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url<'a> {
    scheme: Option<Scheme>,
    host: Cow<'a, str>,
    port: Option<u16>,
    path: &'a str,
    tail: &'a str,
}

impl<'a> Url<'a> {
    /// Reads `http://…`, `https://…` and `//…`; nothing else names a host.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = match text.strip_prefix("//") {
            Some(rest) => (None, rest),
            None => {
                let (scheme, rest) = text.split_once("://")?;
                (Some(scheme_of(scheme)?), rest)
            }
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let host = path::host_of(authority).ok()?;
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.ends_with(']'));
        let port = port.filter(|port| !port.is_empty()).and_then(|port| port.parse().ok());
        let (path, tail) = split_tail(rest);
        Some(Self { scheme, host, port, path: if path.is_empty() { "/" } else { path }, tail })
    }

    fn default_port(&self) -> bool {
        self.port.is_none_or(|port| port == self.scheme.unwrap_or(Scheme::Http).default_port())
    }

    fn address(&self) -> Address<'_> {
        Address { scheme: self.scheme, host: &self.host, port: self.port, path: self.path }
    }

    fn is_at(&self, origin: &Origin) -> bool {
        self.address().is_at(origin)
    }
}

fn scheme_of(text: &str) -> Option<Scheme> {
    if text.eq_ignore_ascii_case("http") {
        Some(Scheme::Http)
    } else if text.eq_ignore_ascii_case("https") {
        Some(Scheme::Https)
    } else {
        None
    }
}

fn split_tail(text: &str) -> (&str, &str) {
    text.split_at(text.find(['?', '#']).unwrap_or(text.len()))
}

/// What a rule reverses beyond its members' own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The scheme that clients use, whatever the request says.
    pub scheme: Option<Scheme>,
    /// The host that they use, and its port.
    pub host: Option<Box<str>>,
    locations: Vec<(From, String)>,
    cookie_domains: Vec<(String, String)>,
    cookie_paths: Vec<(String, String)>,
}

/// What a location rule compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Url(Origin, String),
    Path(String),
}

impl Rules {
    /// Locations that begin with `from`, a URL or a path, begin with `to` instead.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn add_location(&mut self, from: &str, to: &str) -> Result<(), String> {
        let wrong = |text: &str| {
            format!("`{text}` must be an http or https URL without query, or a path such as /app/")
        };
        let base = |text: &str| {
            !text.contains(['?', '#', ' ', '\\']) && HeaderValue::from_str(text).is_ok()
        };
        if !base(from) {
            return Err(wrong(from));
        }
        let absolute = |text: &str| Url::parse(text).is_some_and(|url| url.scheme.is_some());
        let local = |text: &str| text.starts_with('/') && !text.starts_with("//");
        if !base(to) || !(absolute(to) || local(to)) {
            return Err(wrong(to));
        }
        let from = match Url::parse(from) {
            Some(Url { scheme: Some(scheme), host, port, path, .. }) => {
                let port = port.unwrap_or(scheme.default_port());
                let origin = Origin { scheme, host: host.into_owned(), port };
                From::Url(origin, path.to_owned())
            }
            _ if local(from) => From::Path(from.to_owned()),
            _ => return Err(wrong(from)),
        };
        self.locations.push((from, to.to_owned()));
        Ok(())
    }

    /// Cookies for the domain `from` are for `to` instead.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn add_cookie_domain(&mut self, from: &str, to: &str) -> Result<(), String> {
        let name = |text: &str| match HostPattern::parse(text.strip_prefix('.').unwrap_or(text)) {
            Ok(HostPattern::Exact(name)) => Ok(name.into_string()),
            _ => Err(format!("`{text}` must be a host name, such as app1.site.com")),
        };
        self.cookie_domains.push((name(from)?, name(to)?));
        Ok(())
    }

    /// Cookies for a path below `from` are for the same below `to` instead.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn add_cookie_path(&mut self, from: &str, to: &str) -> Result<(), String> {
        for text in [from, to] {
            let fits = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
            if !text.starts_with('/') || !fits {
                return Err(format!("`{text}` must be a path, such as /app/"));
            }
        }
        self.cookie_paths.push((from.to_owned(), to.to_owned()));
        Ok(())
    }
}

/// The reversal of one rule: its prefix, all its members' addresses, and its own rules.
#[derive(Clone, Debug)]
pub struct Reversal {
    prefix: Prefix,
    /// Where members share an origin, the longest path comes first.
    bases: Vec<Base>,
    /// Addresses that are nobody's.
    barred: Arc<Barred>,
    rules: Rules,
}

/// What a response says of itself, and how it was asked for.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// How the client addressed the site.
    pub public: &'a Public<'a>,
    /// The path under which the member that answered serves.
    pub by: &'a str,
    /// The member was asked with the client's Host, so that it may speak of that as its own.
    pub host_kept: bool,
    /// The public path of an address that belongs to another rule of the same site, if to any.
    pub elsewhere: &'a dyn Fn(&Address<'_>) -> Option<String>,
}

/// Where a URL points.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    scheme: Option<Scheme>,
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
}

impl Address<'_> {
    fn is_at(&self, origin: &Origin) -> bool {
        let scheme = self.scheme.unwrap_or(origin.scheme);
        let port = self.port.unwrap_or(scheme.default_port());
        scheme == origin.scheme && port == origin.port && self.host == origin.host
    }

    fn is_below(&self, base: &Base, barred: &Barred) -> bool {
        let scheme = self.scheme.unwrap_or(base.scheme);
        let port = self.port.unwrap_or(scheme.default_port());
        scheme == base.scheme && base.place.has(self.host, Some(port), barred)
    }
}

/// One response on its way to the client.
struct Answer<'a> {
    reversal: &'a Reversal,
    public: &'a Public<'a>,
    /// The path of the member that answered.
    by: &'a str,
    host_kept: bool,
    elsewhere: &'a dyn Fn(&Address<'_>) -> Option<String>,
}

impl Reversal {
    /// Of a rule with this prefix and these members, no endpoint of which is at an address that is barred.
    #[must_use]
    pub fn new(prefix: &Prefix, mut bases: Vec<Base>, barred: Arc<Barred>, rules: Rules) -> Self {
        bases.sort_by_key(|base| std::cmp::Reverse(base.path.len()));
        Self { prefix: prefix.clone(), bases, barred, rules }
    }

    /// The public path of an address of this rule's members, and how much of it was the member's.
    #[must_use]
    pub fn public_path(&self, address: &Address<'_>) -> Option<(usize, String)> {
        let below = |base: &Base| path::unjoin(&base.path, address.path);
        let mut found = self.bases.iter().filter_map(|base| Some((base, below(base)?)));
        // What is below a path that is matched alone is not this rule's.
        let is_served = |rest: &str| !self.prefix.is_exact() || rest.is_empty() || rest == "/";
        let (base, rest) =
            found.find(|(base, rest)| is_served(rest) && address.is_below(base, &self.barred))?;
        Some((base.path.len(), self.prefix.public(rest)))
    }

    /// Whether a host is one of its members'.
    fn has(&self, host: &str) -> bool {
        self.bases.iter().any(|base| base.place.has(host, None, &self.barred))
    }

    /// Reverses Location, Content-Location, URI, Destination, Refresh and Set-Cookie in place.
    /// Returns how many fields still name a member's own host afterwards.
    pub fn apply(&self, headers: &mut HeaderMap, said: Said<'_>) -> usize {
        let Said { public, by, host_kept, elsewhere } = said;
        let answer = Answer { reversal: self, public, by, host_kept, elsewhere };
        for name in [LOCATION, CONTENT_LOCATION, DESTINATION] {
            edit(headers, &name, |value| answer.location(value));
        }
        edit(headers, &URI, |value| answer.bracketed(value));
        edit(headers, &REFRESH, |value| answer.refresh(value));
        edit(headers, &SET_COOKIE, |value| answer.cookie(value));
        answer.leaks(headers)
    }
}

/// A value as text. Members do send what is not ASCII, in UTF-8 or with a letter a byte (Latin-1);
/// either is the text that [`bytes`] turns into the same bytes again.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.into(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    }
}

/// The bytes of a text that is `like` this value.
fn bytes(text: &str, like: &HeaderValue) -> Vec<u8> {
    if std::str::from_utf8(like.as_bytes()).is_ok() {
        return text.as_bytes().to_vec();
    }
    text.chars().flat_map(|c| u8::try_from(c).map_or(vec![b'?'], |byte| vec![byte])).collect()
}

/// Replaces the values for which `change` has another.
fn edit(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    if !headers.contains_key(name) {
        return;
    }
    let http::header::Entry::Occupied(mut entry) = headers.entry(name) else {
        return;
    };
    for value in entry.iter_mut() {
        let new = change(&text(value)).map(|new| bytes(&new, value));
        if let Some(new) = new.and_then(|new| HeaderValue::from_bytes(&new).ok()) {
            *value = new;
        }
    }
}

impl Answer<'_> {
    fn location(&self, value: &str) -> Option<String> {
        match Url::parse(value) {
            Some(url) => self.by_rule(&url).or_else(|| self.by_site(&url)),
            // Browsers take a backslash for a slash: what follows it might become a host.
            None if value.contains(['\\', '\t']) => None,
            None if value.starts_with('/') && !value.starts_with("//") => self.local(value),
            None => None,
        }
    }

    fn by_rule(&self, url: &Url<'_>) -> Option<String> {
        self.reversal.rules.locations.iter().find_map(|(from, to)| {
            let From::Url(origin, below) = from else { return None };
            let rest = path::unjoin(below, url.path).filter(|_| url.is_at(origin))?;
            let path = path::join(to, rest);
            let target = if to.starts_with('/') { self.public.url(&path) } else { base(to, rest) };
            Some(target + url.tail)
        })
    }

    fn by_site(&self, url: &Url<'_>) -> Option<String> {
        let own = self.reversal.public_path(&url.address()).map(|(_, path)| path);
        if let Some(path) = own.or_else(|| (self.elsewhere)(&url.address())) {
            return Some(self.public.url(&path) + url.tail);
        }
        if !self.host_kept || !self.public.names(url) {
            return None;
        }
        let public = path::unjoin(self.by, url.path)
            .filter(|_| self.moves())
            .map_or(Cow::Borrowed(url.path), |rest| self.reversal.prefix.public(rest).into());
        if url.scheme == Some(Scheme::Https) && self.public.scheme == Scheme::Http {
            // The application sends its clients to TLS: to undo that would send them in circles.
            let port = url.port.map_or(String::new(), |port| format!(":{port}"));
            return Some(format!("https://{}{port}{public}{}", url.host, url.tail));
        }
        Some(self.public.url(&public) + url.tail)
    }

    /// Whether the member's paths differ from the public ones.
    fn moves(&self) -> bool {
        self.by.trim_end_matches('/') != self.reversal.prefix.as_str().trim_end_matches('/')
    }

    /// A path without a host: of the member that answered.
    fn local(&self, value: &str) -> Option<String> {
        let (path, tail) = split_tail(value);
        let by_rule = self.reversal.rules.locations.iter().find_map(|(from, to)| {
            let From::Path(from) = from else { return None };
            let rest = path::unjoin(from, path)?;
            Some(if to.starts_with('/') {
                path::join(to, rest).into_owned()
            } else {
                base(to, rest)
            })
        });
        let by_site = || {
            let rest = path::unjoin(self.by, path).filter(|_| self.moves())?;
            Some(self.reversal.prefix.public(rest))
        };
        Some(by_rule.or_else(by_site)? + tail)
    }

    /// `URI: <http://…>`, with or without the brackets.
    fn bracketed(&self, value: &str) -> Option<String> {
        match value.strip_prefix('<').and_then(|value| value.strip_suffix('>')) {
            Some(inner) => Some(format!("<{}>", self.location(inner)?)),
            None => self.location(value),
        }
    }

    /// `Refresh: 5; url=http://…`, quoted or not.
    fn refresh(&self, value: &str) -> Option<String> {
        let at = refresh_url(value)?;
        let (before, url) = value.split_at(at);
        let quote = url.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            return Some(format!("{before}{}", self.location(url)?));
        };
        let (inner, after) = url[1..].split_once(quote)?;
        Some(format!("{before}{quote}{}{quote}{after}", self.location(inner)?))
    }

    /// Changes Domain and Path of a cookie, and no other byte.
    fn cookie(&self, value: &str) -> Option<String> {
        let mut parts = value.split(';');
        let mut changed = String::with_capacity(value.len());
        changed.push_str(parts.next()?);
        for part in parts {
            changed.push(';');
            match self.attribute(part) {
                Some(new) => changed.push_str(&new),
                None => changed.push_str(part),
            }
        }
        (changed != value).then_some(changed)
    }

    fn attribute(&self, part: &str) -> Option<String> {
        let (name, value) = part.split_once('=')?;
        let bare = value.trim();
        let bare = bare.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(bare);
        let new = if name.trim().eq_ignore_ascii_case("domain") {
            self.domain(bare)?
        } else if name.trim().eq_ignore_ascii_case("path") {
            self.cookie_path(bare)?
        } else {
            return None;
        };
        let at = value.find(bare)?;
        Some(format!("{name}={}{new}{}", &value[..at], &value[at + bare.len()..]))
    }

    fn domain(&self, value: &str) -> Option<String> {
        let name = value.strip_prefix('.').unwrap_or(value);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let by_rule = self.reversal.rules.cookie_domains.iter().find(|(from, _)| is(from));
        let own = || self.reversal.has(&name.to_ascii_lowercase());
        match by_rule {
            Some((_, to)) => Some(to.clone()),
            None if own() => Some(self.public.host().into_owned()),
            None => None,
        }
    }

    fn cookie_path(&self, value: &str) -> Option<String> {
        let by_rule = self.reversal.rules.cookie_paths.iter().find_map(|(from, to)| {
            let rest = path::unjoin(from, value)?;
            // Where the public path lies within the member's, it may have been said already.
            if path::unjoin(from, to).is_some() && path::unjoin(to, value).is_some() {
                return Some(value.to_owned());
            }
            Some(if rest.is_empty() { to.clone() } else { path::join(to, rest).into_owned() })
        });
        by_rule.or_else(|| {
            let rest = path::unjoin(self.by, value).filter(|_| self.moves())?;
            // Path=/ of a member at / is its whole site: the prefix as it was written.
            Some(self.reversal.prefix.public(if rest == "/" { "" } else { rest }))
        })
    }

    fn leaks(&self, headers: &HeaderMap) -> usize {
        let names = [LOCATION, CONTENT_LOCATION, DESTINATION, URI, REFRESH, LINK];
        let urls = names.iter().flat_map(|name| headers.get_all(name));
        let urls = urls.filter(|value| self.names_member(&text(value)));
        let cookies = headers.get_all(SET_COOKIE).iter();
        let cookies = cookies.filter(|value| self.cookie_leaks(&text(value)));
        urls.count() + cookies.count()
    }

    fn is_internal(&self, host: &str) -> bool {
        self.public.host() != host && self.reversal.has(host)
    }

    /// Whether a member's host stands behind any `//` in the text.
    fn names_member(&self, text: &str) -> bool {
        text.match_indices("//").any(|(at, _)| {
            let rest = &text[at + 2..];
            let end =
                rest.find(['/', '?', '#', '>', '"', '\'', ' ', ';', ',']).unwrap_or(rest.len());
            let authority = rest[..end].rsplit('@').next().unwrap_or_default();
            path::host_of(authority).is_ok_and(|host| self.is_internal(&host))
        })
    }

    fn cookie_leaks(&self, text: &str) -> bool {
        text.split(';').skip(1).filter_map(|part| part.split_once('=')).any(|(name, value)| {
            let host = value.trim().trim_matches('"').trim_start_matches('.').to_ascii_lowercase();
            name.trim().eq_ignore_ascii_case("domain") && self.is_internal(&host)
        })
    }
}

/// A base URL with a rest; unlike [`path::join`], the base has a host.
fn base(to: &str, rest: &str) -> String {
    if rest.is_empty() { to.to_owned() } else { path::join(to, rest).into_owned() }
}

/// Where the URL of a Refresh begins, after `5; url=` or, as browsers accept it too, after `5;`.
fn refresh_url(value: &str) -> Option<usize> {
    let spaces = |from: usize| value[from..].len() - value[from..].trim_start().len();
    let from = value.find([';', ','])? + 1;
    let from = from + spaces(from);
    let name = value.get(from..from + 3).filter(|name| name.eq_ignore_ascii_case("url"));
    let equals = name.and_then(|name| {
        let equals = from + name.len() + spaces(from + name.len());
        value[equals..].starts_with('=').then_some(equals)
    });
    match equals {
        Some(equals) => Some(equals + 1 + spaces(equals + 1)),
        None => (from < value.len()).then_some(from),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::path::{RequestPath, join};
    use super::*;

    fn base(url: &str) -> Base {
        let url = Url::parse(url).unwrap();
        let scheme = url.scheme.unwrap();
        let port = url.port.unwrap_or(scheme.default_port());
        let host = address_of(&url.host).map_or_else(|| Host::Name(url.host.into()), Host::Address);
        Base { scheme, place: Place::Url(host, port), path: url.path.into() }
    }

    /// A rule of the article's site, and the response of its first member.
    struct Setup {
        reversal: Reversal,
        by: Arc<str>,
        kept: bool,
        authority: &'static str,
        scheme: Scheme,
    }

    fn nowhere(_: &Address<'_>) -> Option<String> {
        None
    }

    fn setup(prefix: &str, members: &[&str]) -> Setup {
        let bases: Vec<_> = members.iter().map(|url| base(url)).collect();
        let by = Arc::clone(&bases[0].path);
        let prefix = Prefix::parse(prefix).unwrap();
        let reversal = Reversal::new(&prefix, bases, Arc::default(), Rules::default());
        Setup { reversal, by, kept: false, authority: "www.site.com", scheme: Scheme::Http }
    }

    fn app() -> Setup {
        setup("/", &["http://app1.site.com/", "http://app2.site.com/"])
    }

    fn fixed() -> Setup {
        setup("/static/", &["http://static1.site.com/media/", "http://static2.site.com/media/"])
    }

    impl Setup {
        fn field(&self, name: &str, value: &str) -> (String, usize) {
            let mut headers = HeaderMap::new();
            let name = HeaderName::try_from(name).unwrap();
            headers.insert(&name, HeaderValue::try_from(value).unwrap());
            let public = Public { scheme: self.scheme, authority: self.authority };
            let said =
                Said { public: &public, by: &self.by, host_kept: self.kept, elsewhere: &nowhere };
            let leaks = self.reversal.apply(&mut headers, said);
            (headers[name].to_str().unwrap().to_owned(), leaks)
        }

        fn location(&self, value: &str) -> String {
            self.field("location", value).0
        }

        fn cookie(&self, value: &str) -> String {
            self.field("set-cookie", value).0
        }
    }

    #[test]
    fn every_members_address_becomes_the_public_one() {
        for (from, to) in [
            (
                "http://app1.site.com/login?next=%2Fa&b=1#frag",
                "http://www.site.com/login?next=%2Fa&b=1#frag",
            ),
            ("http://APP1.SITE.COM/Login", "http://www.site.com/Login"),
            ("http://app1.site.com", "http://www.site.com/"),
            ("http://app1.site.com?x", "http://www.site.com/?x"),
            ("http://app1.site.com:80/login", "http://www.site.com/login"),
            ("//app1.site.com/login", "http://www.site.com/login"),
            ("http://app2.site.com/login", "http://www.site.com/login"),
        ] {
            assert_eq!(app().location(from), to);
        }
    }

    #[test]
    fn other_origins_and_relative_references_stay() {
        for value in [
            "https://app1.site.com/login",
            "http://app1.site.com:8080/login",
            "http://app1.site.com.evil.org/x",
            "http://user@app1.site.com/",
            "http://other.example.org/",
            "ftp://app1.site.com/",
            "/login",
            "login",
            "../up",
            "?x",
            "",
        ] {
            assert_eq!(app().location(value), value);
        }
    }

    #[test]
    fn reversal_makes_no_redirect_to_another_host() {
        let setup = setup("/", &["http://static1.site.com/media/"]);
        for value in ["/media/\\evil.org/", "/media/\t/evil.org/", "/media\\evil.org"] {
            assert_eq!(setup.field("location", value).0, value);
        }
        assert_eq!(setup.location("/media//evil.org/"), "/evil.org/");
    }

    #[test]
    fn the_members_path_becomes_the_prefix() {
        for (from, to) in [
            ("http://static2.site.com/media/css/a.css", "http://www.site.com/static/css/a.css"),
            ("http://static1.site.com/media", "http://www.site.com/static/"),
            ("/media/x?y", "/static/x?y"),
            ("http://static1.site.com/MEDIA/x", "http://static1.site.com/MEDIA/x"),
            ("http://static1.site.com/mediax", "http://static1.site.com/mediax"),
            ("/mediax", "/mediax"),
            ("/other", "/other"),
        ] {
            assert_eq!(fixed().location(from), to);
        }
    }

    #[test]
    fn the_public_side_is_what_the_client_wrote() {
        let setup = Setup { authority: "www.site.com:8080", scheme: Scheme::Https, ..app() };
        assert_eq!(setup.location("http://app1.site.com/login"), "https://www.site.com:8080/login");
    }

    #[test]
    fn other_fields_are_reversed_too() {
        for (name, from, to) in [
            ("content-location", "http://app1.site.com/a", "http://www.site.com/a"),
            ("destination", "http://app1.site.com/a", "http://www.site.com/a"),
            ("uri", "<http://app1.site.com/a>", "<http://www.site.com/a>"),
            ("refresh", "0; url=http://app1.site.com/a", "0; url=http://www.site.com/a"),
            ("refresh", "5;URL='http://app1.site.com/a'", "5;URL='http://www.site.com/a'"),
            (
                "refresh",
                "5; url = \"http://app1.site.com/a\" x",
                "5; url = \"http://www.site.com/a\" x",
            ),
            ("refresh", "5; http://app1.site.com/a", "5; http://www.site.com/a"),
            ("refresh", "5, 'http://app1.site.com/a'", "5, 'http://www.site.com/a'"),
            ("refresh", "5; urlish", "5; urlish"),
            ("refresh", "5;", "5;"),
            ("refresh", "5", "5"),
        ] {
            assert_eq!(app().field(name, from).0, to);
        }
    }

    #[test]
    fn what_is_not_ascii_is_reversed_and_counted_too() {
        let field = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let setup = app();
            let public = Public { scheme: Scheme::Http, authority: "www.site.com" };
            let by = &setup.by;
            let said = Said { public: &public, by, host_kept: false, elsewhere: &nowhere };
            let leaks = setup.reversal.apply(&mut headers, said);
            (String::from_utf8_lossy(headers[name].as_bytes()).into_owned(), leaks)
        };
        let to = |text: &str| (text.to_owned(), 0);
        assert_eq!(field(LOCATION, "http://app1.site.com/é"), to("http://www.site.com/é"));
        assert_eq!(field(SET_COOKIE, "n=é; Domain=app1.site.com"), to("n=é; Domain=www.site.com"));
        assert_eq!(field(LOCATION, "https://app1.site.com/é").1, 1);
        // A letter a byte.
        let latin = |name: &HeaderName, value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
            let (setup, public) =
                (app(), Public { scheme: Scheme::Http, authority: "www.site.com" });
            let said =
                Said { public: &public, by: &setup.by, host_kept: false, elsewhere: &nowhere };
            let leaks = setup.reversal.apply(&mut headers, said);
            (headers[name].as_bytes().to_vec(), leaks)
        };
        let location = latin(&LOCATION, b"http://app1.site.com/caf\xe9");
        assert_eq!(location, (b"http://www.site.com/caf\xe9".to_vec(), 0));
        let cookie = latin(&SET_COOKIE, b"n=caf\xe9; Domain=app1.site.com");
        assert_eq!(cookie, (b"n=caf\xe9; Domain=www.site.com".to_vec(), 0));
        assert_eq!(latin(&LOCATION, b"https://app1.site.com/\xe9").1, 1);
    }

    #[test]
    fn what_the_rule_says_of_the_site_counts_more_than_the_request() {
        let asked = Public { scheme: Scheme::Http, authority: "alias.site.com:8080" };
        let host = Some("www.site.com".into());
        for (scheme, host, expected) in [
            (None, None, "http://alias.site.com:8080/x"),
            (Some(Scheme::Https), None, "https://alias.site.com:8080/x"),
            (Some(Scheme::Https), host, "https://www.site.com/x"),
        ] {
            let rules = Rules { scheme, host, ..Rules::default() };
            assert_eq!(asked.as_said(Some(&rules)).url("/x"), expected);
        }
        assert_eq!(asked.as_said(None).url("/x"), "http://alias.site.com:8080/x");
    }

    #[test]
    fn every_occurrence_is_reversed() {
        let mut headers = HeaderMap::new();
        for path in ["/a", "/b"] {
            let value = format!("http://app1.site.com{path}");
            headers.append(LOCATION, HeaderValue::try_from(value).unwrap());
        }
        let setup = app();
        let public = Public { scheme: Scheme::Http, authority: "www.site.com" };
        let by = &setup.by;
        let said = Said { public: &public, by, host_kept: false, elsewhere: &nowhere };
        setup.reversal.apply(&mut headers, said);
        let values: Vec<_> = headers.get_all(LOCATION).iter().collect();
        assert_eq!(values, ["http://www.site.com/a", "http://www.site.com/b"]);
    }

    #[test]
    fn a_member_that_got_the_clients_host_speaks_of_it_as_its_own() {
        let setup = Setup { kept: true, scheme: Scheme::Https, ..fixed() };
        assert_eq!(setup.location("http://www.site.com/media/x"), "https://www.site.com/static/x");
        assert_eq!(setup.location("http://www.site.com/static/x"), "https://www.site.com/static/x");
        assert_eq!(
            setup.location("http://www.site.com:81/media/x"),
            "http://www.site.com:81/media/x"
        );
        let plain = Setup { kept: true, ..app() };
        assert_eq!(plain.location("https://www.site.com/x?y"), "https://www.site.com/x?y");
        let mapped = Setup { kept: true, ..fixed() };
        assert_eq!(
            mapped.location("https://www.site.com/media/x"),
            "https://www.site.com/static/x"
        );
        assert_eq!(plain.location("http://www.site.com/x"), "http://www.site.com/x");
    }

    #[test]
    fn own_rules_come_first() {
        let mut rules = Rules::default();
        rules.add_location("http://app1.site.com/old/", "/new/").unwrap();
        rules.add_location("http://cdn.internal/", "https://cdn.site.com/x/").unwrap();
        rules.add_location("/legacy", "/modern").unwrap();
        let mut setup = app();
        setup.reversal.rules = rules;
        for (from, to) in [
            ("http://app1.site.com/old/a?q", "http://www.site.com/new/a?q"),
            ("http://app1.site.com/older", "http://www.site.com/older"),
            ("http://cdn.internal/a", "https://cdn.site.com/x/a"),
            ("/legacy/a", "/modern/a"),
            ("/legacyx", "/legacyx"),
        ] {
            assert_eq!(setup.location(from), to);
        }
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        let mut rules = Rules::default();
        assert!(rules.add_location("app1", "/").unwrap_err().contains("/app/"));
        assert!(rules.add_location("/a?b", "/").is_err());
        assert!(rules.add_location("/a", "//evil").is_err());
        assert!(rules.add_cookie_domain("http://x", "y").unwrap_err().contains("app1.site.com"));
        assert!(rules.add_cookie_path("a", "/").unwrap_err().contains("path"));
    }

    #[test]
    fn the_domain_of_a_members_cookie_becomes_the_public_host() {
        for (from, to) in [
            (
                "sessionid=abc!app1; Domain=app1.site.com; Path=/",
                "sessionid=abc!app1; Domain=www.site.com; Path=/",
            ),
            (
                "a=b; DOMAIN=app1.site.com; Secure; SameSite=Lax",
                "a=b; DOMAIN=www.site.com; Secure; SameSite=Lax",
            ),
            ("a=b; Domain=.app1.site.com", "a=b; Domain=www.site.com"),
            ("a=b; Domain=app1.site.com.evil.org", "a=b; Domain=app1.site.com.evil.org"),
            ("a=b; Path=/", "a=b; Path=/"),
            ("Domain=app1.site.com; Path=/", "Domain=app1.site.com; Path=/"),
            (
                "a=b; Expires=Wed, 21 Oct 2037 07:28:00 GMT; Domain=app1.site.com",
                "a=b; Expires=Wed, 21 Oct 2037 07:28:00 GMT; Domain=www.site.com",
            ),
            ("a=b; Domain = \"APP2.site.com\" ;x", "a=b; Domain = \"www.site.com\" ;x"),
            ("a=b;  HttpOnly ;domain=other.org", "a=b;  HttpOnly ;domain=other.org"),
        ] {
            assert_eq!(app().cookie(from), to);
        }
    }

    #[test]
    fn the_path_of_a_members_cookie_keeps_its_end() {
        for (from, to) in [
            ("a=b; Path=/media/img", "a=b; Path=/static/img"),
            ("a=b; path=/media/", "a=b; path=/static/"),
            ("a=b; Path=/media", "a=b; Path=/static/"),
            ("a=b; Path=/mediax", "a=b; Path=/mediax"),
            ("a=b; Path=/", "a=b; Path=/"),
        ] {
            assert_eq!(fixed().cookie(from), to);
        }
        let below = setup("/app/", &["http://app1.site.com/"]);
        assert_eq!(below.cookie("a=b; Path=/"), "a=b; Path=/app/");
        assert_eq!(below.cookie("a=b; Path=/x"), "a=b; Path=/app/x");
        assert_eq!(
            setup("/app", &["http://app1.site.com/"]).cookie("a=b; Path=/"),
            "a=b; Path=/app"
        );
    }

    #[test]
    fn a_cookie_path_that_is_public_already_stays() {
        let mut setup = setup("/mirror/foo/", &["http://app1.site.com/"]);
        setup.reversal.rules.add_cookie_path("/", "/mirror/foo/").unwrap();
        assert_eq!(setup.cookie("a=b; Path=/x"), "a=b; Path=/mirror/foo/x");
        assert_eq!(setup.cookie("a=b; Path=/mirror/foo/x"), "a=b; Path=/mirror/foo/x");
    }

    #[test]
    fn cookie_rules_come_first() {
        let mut setup = app();
        setup.reversal.rules.add_cookie_domain("app1.site.com", "shop.site.com").unwrap();
        setup.reversal.rules.add_cookie_path("/media/", "/files/").unwrap();
        assert_eq!(setup.cookie("a=b; Domain=app1.site.com"), "a=b; Domain=shop.site.com");
        assert_eq!(setup.cookie("a=b; Path=/media/img"), "a=b; Path=/files/img");
    }

    #[test]
    fn what_still_names_a_member_is_counted() {
        assert_eq!(app().field("location", "http://app1.site.com/login").1, 0);
        assert_eq!(app().field("location", "https://app1.site.com/login").1, 1);
        assert_eq!(
            app().field("location", "http://www.site.com/?to=http://app2.site.com:81/").1,
            1
        );
        assert_eq!(app().field("link", "<http://app1.site.com/a.css>; rel=preload").1, 1);
        assert_eq!(app().field("location", "http://app1.site.com.evil.org/").1, 0);
        assert_eq!(fixed().field("location", "http://static1.site.com/other").1, 1);
        assert_eq!(app().field("set-cookie", "a=b; Domain=app1.site.com").1, 0);
    }

    #[test]
    fn the_longest_path_of_an_origin_counts() {
        let setup = setup("/x/", &["http://app1.site.com/", "http://app1.site.com/deep/"]);
        assert_eq!(setup.location("http://app1.site.com/deep/a"), "http://www.site.com/x/a");
        assert_eq!(setup.location("http://app1.site.com/a"), "http://www.site.com/x/a");
    }

    proptest! {
        /// Only one thing is lost: a member at `/` cannot say `/app` apart from `/app/`.
        #[test]
        fn what_a_member_says_of_a_public_url_gives_that_url(
            prefix in "(/[a-z]{1,3}){0,2}/?",
            member in "(/[a-z]{1,3}){0,2}/?",
            rest in "(/[a-z0-9%._-]{1,4}){0,3}/?",
            query in "(\\?[a-z=&/]{0,5})?",
        ) {
            let or_root = |path: String| if path.is_empty() { "/".to_owned() } else { path };
            let (prefix, member) = (or_root(prefix), or_root(member));
            let path = or_root(format!("{}{rest}", prefix.trim_end_matches('/')));
            let request = RequestPath::resolve(&path).unwrap();
            let parsed = Prefix::parse(&prefix).unwrap();
            if let Some(rest) = parsed.rest(&request) {
                let target = join(&member, rest);
                let setup = setup(&prefix, &[&format!("http://app1.site.com{member}")]);
                let said = format!("http://app1.site.com{target}{query}");
                let path = request.sent();
                let same = format!("http://www.site.com{path}{query}");
                let at_root = member == "/" && rest.is_empty() && path != "/";
                let slash = format!("http://www.site.com{path}/{query}");
                prop_assert_eq!(setup.location(&said), if at_root { slash } else { same });
            }
        }

        #[test]
        fn nothing_that_a_member_sends_panics(value in "\\PC{0,40}", name in 0usize..7) {
            let names = [LOCATION, CONTENT_LOCATION, DESTINATION, URI, REFRESH, SET_COOKIE, LINK];
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                let mut headers = HeaderMap::new();
                headers.insert(&names[name], value);
                let setup = fixed();
                let public = Public { scheme: Scheme::Http, authority: "www.site.com" };
                let by = &setup.by;
                let said = Said { public: &public, by, host_kept: true, elsewhere: &nowhere };
                setup.reversal.apply(&mut headers, said);
            }
        }
    }
}
