//! Why a request falls to one rule and not to another, and what it says of its session; for people.

use std::sync::Arc;

use http::HeaderMap;

use super::path::{HostPattern, RequestPath};
use super::sticky::{self, Sticky};
use super::{Holder, Route, Rule, RuleId, Table};

/// Why a rule does not serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// None of its hosts is the request's.
    OtherHost,
    /// Its path is not a prefix of the request's.
    OtherPath,
    /// The host belongs to this namespace.
    HostOwned(Arc<str>),
    /// This rule has the same host and path, and comes first.
    Conflict(RuleId),
    /// Its host matches, but this one is more specific.
    LessSpecificHost(String),
    /// Its path matches, but this one is longer.
    ShorterPath(String),
}

impl Why {
    /// The label in JSON.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::OtherHost => "other-host",
            Self::OtherPath => "other-path",
            Self::HostOwned(_) => "host-owned",
            Self::Conflict(_) => "conflict",
            Self::LessSpecificHost(_) => "less-specific-host",
            Self::ShorterPath(_) => "shorter-path",
        }
    }
}

/// A rule that does not serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its name.
    pub rule: RuleId,
    /// The host by which it came nearest; none if none of its hosts matches.
    pub host: Option<String>,
    /// Its path.
    pub path: String,
    /// Why it does not.
    pub why: Why,
}

/// What one place in a request says of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it was found.
    pub place: Place,
    /// The name of the cookie or parameter.
    pub name: String,
    /// What the pattern or separator found there: the route, or the value of Gibbon's own cookie.
    pub gave: Option<String>,
    /// The members that it names, by index.
    pub members: Vec<usize>,
}

impl Finding {
    fn new(place: Place, name: &str, gave: Option<&str>, members: Option<&[usize]>) -> Self {
        let members = members.map(<[_]>::to_vec).unwrap_or_default();
        Self { place, name: name.to_owned(), gave: gave.map(str::to_owned), members }
    }
}

/// Where a request names its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A parameter in the path, such as `;jsessionid=`.
    Path,
    /// A parameter in the query.
    Query,
    /// The application's cookie.
    Cookie,
    /// Gibbon's own cookie.
    Issued,
}

impl Place {
    /// What it is called.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Path => "path parameter",
            Self::Query => "query parameter",
            Self::Cookie => "cookie",
            Self::Issued => "Gibbon's cookie",
        }
    }
}

impl Rule {
    /// The most specific of its hosts that covers a host (lower case, no port).
    #[must_use]
    pub fn covering(&self, host: &str) -> Option<&HostPattern> {
        let covering = self.hosts.iter().filter(|pattern| pattern.matches(host));
        covering.max_by_key(|pattern| pattern.precision())
    }
}

impl Table {
    /// Why each rule but `found` does not serve a host (lower case, no port) and a path; the nearest
    /// first.
    #[must_use]
    pub fn others(&self, host: &str, path: &RequestPath<'_>, found: Option<&Route>) -> Vec<Other> {
        let others = self
            .routes
            .iter()
            .filter(|route| found.is_none_or(|found| found.rule.id != route.rule.id));
        let mut others: Vec<Other> =
            others.map(|route| self.other(&route.rule, host, path, found)).collect();
        // Those of one reason stay in the order of their names.
        others.sort_by_key(|other| std::cmp::Reverse(rank(&other.why)));
        others
    }

    fn other(
        &self,
        rule: &Rule,
        host: &str,
        path: &RequestPath<'_>,
        found: Option<&Route>,
    ) -> Other {
        let pattern = rule.covering(host);
        Other {
            rule: rule.id.clone(),
            host: pattern.map(ToString::to_string),
            path: rule.prefix.to_string(),
            why: pattern.map_or(Why::OtherHost, |own| self.why(rule, own, host, path, found)),
        }
    }

    fn why(
        &self,
        rule: &Rule,
        own: &HostPattern,
        host: &str,
        path: &RequestPath<'_>,
        found: Option<&Route>,
    ) -> Why {
        if rule.prefix.rest(path).is_none() {
            return Why::OtherPath;
        }
        let text = own.to_string();
        let lost = self.verdicts_of(&rule.id).iter().find(|verdict| verdict.host == text);
        if let Some(verdict) = lost {
            return match &verdict.holder {
                Holder::Rule(id) => Why::Conflict(id.clone()),
                Holder::Namespace(owner) => Why::HostOwned(Arc::clone(owner)),
            };
        }
        // The first owner from the most specific host on has all that is left.
        let owner = self.paths(host).find_map(|paths| paths.owner.as_ref());
        if let Some(owner) = owner.filter(|owner| **owner != rule.id.namespace) {
            return Why::HostOwned(Arc::clone(owner));
        }
        let better = found.and_then(|found| Some((found, found.rule.covering(host)?)));
        match better {
            Some((_, host)) if host.precision() > own.precision() => {
                Why::LessSpecificHost(host.to_string())
            }
            Some((found, _)) => Why::ShorterPath(found.rule.prefix.to_string()),
            // Who could serve it and is not hindered would have been found.
            None => Why::OtherPath,
        }
    }
}

/// How near a rule came.
const fn rank(why: &Why) -> u8 {
    match why {
        Why::OtherHost => 0,
        Why::OtherPath => 1,
        Why::LessSpecificHost(_) => 2,
        Why::ShorterPath(_) => 3,
        Why::HostOwned(_) => 4,
        Why::Conflict(_) => 5,
    }
}

impl Route {
    /// All that a request says of its session, the most preferred first: the first that names a
    /// member counts. `path` and `query` are as the client sent them.
    #[must_use]
    pub fn findings(&self, path: &str, query: Option<&str>, headers: &HeaderMap) -> Vec<Finding> {
        let Some(sticky) = &self.rule.sticky else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        if let Some(name) = sticky.parameter.as_deref() {
            let in_path = sticky::parameters(path, None, name);
            findings.extend(in_path.map(|value| self.in_url(sticky, Place::Path, name, value)));
            let in_query = sticky::parameters("", query, name);
            findings.extend(in_query.map(|value| self.in_url(sticky, Place::Query, name, value)));
        }
        if let Some(name) = sticky.cookie.as_deref() {
            findings.extend(sticky::cookies(headers, Some(name)).map(|value| {
                let route = sticky.extract.route(value);
                Finding::new(Place::Cookie, name, route, route.and_then(|r| self.named.get(r)))
            }));
        }
        if let Some(name) = sticky.issue.as_ref().map(|issue| &*issue.name) {
            findings.extend(sticky::cookies(headers, Some(name)).map(|value| {
                Finding::new(Place::Issued, name, Some(value), self.issued.get(value))
            }));
        }
        findings
    }

    fn in_url(&self, sticky: &Sticky, place: Place, name: &str, value: &str) -> Finding {
        let route = sticky.extract.route_in_url(value);
        let members = route.as_deref().and_then(|route| self.named.get(route));
        Finding::new(place, name, route.as_deref(), members)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::header::{COOKIE, HeaderValue};

    use super::*;
    use crate::table::Endpoints;
    use crate::table::fixture::{entry, rule};
    use crate::table::owners::{Claim, Owners};
    use crate::table::sticky::{Extract, Issue, SameSite, token};

    fn named(name: &str, host: &str, path: &str) -> Arc<Rule> {
        let (namespace, name) = name.split_once('/').unwrap();
        let id = RuleId { namespace: namespace.into(), name: name.into() };
        Arc::new(Rule {
            id,
            hosts: vec![HostPattern::parse(host).unwrap()],
            entries: vec![entry("a", 1)],
            ..rule("app", path)
        })
    }

    fn others(rules: &[Arc<Rule>], owners: Option<&Arc<Owners>>, path: &str) -> Vec<(String, Why)> {
        let (now, before) = (Instant::now(), Table::default());
        let table = Table::build(rules, &Endpoints::default(), owners, &before, now);
        let path = RequestPath::resolve(path).unwrap();
        let found = match table.find("www.site.com", &path) {
            crate::table::Found::Route(route) => Some(&**route),
            _ => None,
        };
        let others = table.others("www.site.com", &path, found);
        others.into_iter().map(|other| (other.rule.to_string(), other.why)).collect()
    }

    #[test]
    fn each_rule_that_does_not_serve_a_request_says_why() {
        let rules = [
            named("a/wins", "www.site.com", "/shop/"),
            named("b/twin", "www.site.com", "/shop/"),
            named("c/short", "www.site.com", "/"),
            named("d/wild", "*.site.com", "/shop/cart"),
            named("e/path", "www.site.com", "/shopping"),
            named("f/host", "other.org", "/"),
        ];
        let id = RuleId { namespace: "a".into(), name: "wins".into() };
        let expected = [
            ("b/twin", Why::Conflict(id)),
            ("c/short", Why::ShorterPath("/shop/".into())),
            ("d/wild", Why::LessSpecificHost("www.site.com".into())),
            ("e/path", Why::OtherPath),
            ("f/host", Why::OtherHost),
        ];
        let expected = expected.map(|(name, why)| (name.to_owned(), why));
        assert_eq!(others(&rules, None, "/shop/cart"), expected);
    }

    #[test]
    fn a_host_of_another_namespace_is_named_as_the_reason() {
        let rules = [
            named("a/own", "www.site.com", "/own/"),
            named("b/same", "www.site.com", "/"),
            named("b/wild", "*.site.com", "/"),
        ];
        let claims = rules.each_ref().map(|rule| Claim {
            host: rule.hosts[0].clone(),
            at: Some(i64::from(*rule.id.namespace != *"a")),
            given_up: false,
            created: None,
            by: rule.id.clone(),
        });
        let owners = Arc::new(Owners::of(&claims));
        let owned = |name: &str| (name.to_owned(), Why::HostOwned("a".into()));
        let own = ("a/own".to_owned(), Why::OtherPath);
        assert_eq!(others(&rules, Some(&owners), "/x"), [owned("b/same"), owned("b/wild"), own]);
        assert_eq!(others(&rules, Some(&owners), "/own/x"), [owned("b/same"), owned("b/wild")]);
    }

    fn sticky() -> Sticky {
        Sticky {
            cookie: Some("sessionid".into()),
            parameter: Some("sid".into()),
            extract: Extract::regex("!(.*)$").unwrap(),
            failover: true,
            issue: Some(Issue {
                name: "own".into(),
                path: "/".into(),
                same_site: SameSite::Lax,
                secure: false,
                http_only: true,
                max_age: None,
            }),
        }
    }

    #[test]
    fn all_that_names_a_session_is_found_and_the_first_that_is_known_counts() {
        let entries = vec![entry("a", 1), entry("b", 2)];
        let route = crate::table::fixture::route(
            Rule { sticky: Some(sticky()), entries, ..rule("app", "/") },
            Instant::now(),
        );
        let mut headers = HeaderMap::new();
        let cookie = format!("sessionid=x!b; sessionid=plain; own={}", token("site", "app", "a"));
        headers.insert(COOKIE, HeaderValue::try_from(cookie).unwrap());
        let (path, query) = ("/;sid=1%21gone/", Some("sid=2!a"));
        let found = route.findings(path, query, &headers);
        let found: Vec<_> =
            found.iter().map(|f| (f.place, f.gave.as_deref(), f.members.as_slice())).collect();
        let none: &[usize] = &[];
        assert_eq!(
            found[..4],
            [
                (Place::Path, Some("gone"), none),
                (Place::Query, Some("a"), &[0]),
                (Place::Cookie, Some("b"), &[1]),
                (Place::Cookie, None, none),
            ]
        );
        assert_eq!((found[4].0, found[4].2), (Place::Issued, [0].as_slice()));
        assert_eq!(route.wish(path, query, &headers).members, [0]);
    }
}
