//! `spec.sticky`: where a request names its session, and Gibbon's own cookie.

use super::checks;
use super::problems::Problems;
use crate::api;
use crate::api::schema;
use crate::table::sticky::{Extract, Issue, SameSite, Sticky};

/// Reads `spec.sticky` of a Balancer with this path.
pub fn sticky(sticky: &api::Sticky, path: &str, problems: &mut Problems) -> Option<Sticky> {
    if sticky.cookie.is_none() && sticky.parameter.is_none() && sticky.issue.is_none() {
        problems.add(
            "spec.sticky",
            "must have cookie, parameter or issue: where a request names its session",
        );
    }
    if let Some(cookie) = &sticky.cookie {
        problems.text("spec.sticky.cookie", cookie, checks::COOKIE_NAME);
    }
    if let Some(parameter) = &sticky.parameter {
        problems.text("spec.sticky.parameter", parameter, checks::PARAMETER_NAME);
    }
    let extract = extract(sticky, problems);
    let issue = sticky.issue.as_ref().map(|issue| self::issue(issue, sticky, path, problems));
    Some(Sticky {
        cookie: sticky.cookie.as_deref().map(Into::into),
        parameter: sticky.parameter.as_deref().map(Into::into),
        extract: extract?,
        failover: sticky.failover,
        issue,
    })
}

fn extract(sticky: &api::Sticky, problems: &mut Problems) -> Option<Extract> {
    match (&sticky.route_regex, &sticky.separator) {
        (Some(_), Some(_)) => {
            problems.add(
                "spec.sticky.separator",
                "must not be beside routeRegex: either finds the route in the session's value",
            );
            None
        }
        (Some(regex), None) => {
            let compile = |text: &str| {
                Extract::regex(text).map_err(|why| format!("{}: {why}", schema::COMPILES.1))
            };
            problems.read("spec.sticky.routeRegex", regex, checks::REGEX, compile)
        }
        (None, Some(separator)) => {
            let split = |text: &str| Ok(Extract::Separator(text.into()));
            problems.read("spec.sticky.separator", separator, checks::SEPARATOR, split)
        }
        (None, None) => Some(Extract::Whole),
    }
}

fn issue(issue: &api::Issue, sticky: &api::Sticky, path: &str, problems: &mut Problems) -> Issue {
    let field = |name: &str| format!("spec.sticky.issue.{name}");
    let before = problems.count();
    problems.text(field("name"), &issue.name, checks::COOKIE_NAME);
    if sticky.cookie.as_ref() == Some(&issue.name) {
        problems
            .add(field("name"), "must differ from sticky.cookie, which is the application's own");
    }
    if let Some(path) = &issue.path {
        problems.text(field("path"), path, checks::COOKIE_PATH);
    }
    if issue.same_site == api::SameSite::None && !issue.secure {
        problems.add(
            field("secure"),
            "must be true with sameSite None: browsers refuse the cookie otherwise",
        );
    }
    if issue.max_age.is_some_and(|age| age.get().as_secs() < 1) {
        problems.add(field("maxAge"), "must be at least 1s");
    }
    let issue = Issue {
        name: issue.name.as_str().into(),
        path: issue.path.as_deref().unwrap_or(path).into(),
        same_site: match issue.same_site {
            api::SameSite::Strict => SameSite::Strict,
            api::SameSite::Lax => SameSite::Lax,
            api::SameSite::None => SameSite::None,
        },
        secure: issue.secure,
        http_only: issue.http_only,
        max_age: issue.max_age.map(|age| age.get()),
    };
    if problems.count() == before {
        problems.take("spec.sticky.issue", issue.check());
    }
    issue
}
