//! `Redirect` and its kin, and the rules of `mod_rewrite` that answer themselves → where a path
//! leads.

use super::pattern::Plain;
use super::read::Directive;
use super::report::Verdict;
use crate::api;

/// A path that is answered without a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The beginning of the paths.
    pub prefix: String,
    /// It is the whole path.
    pub exact: bool,
    /// The answer.
    pub answer: Answer,
    /// How it differs from what Apache does.
    pub differs: Option<&'static str>,
}

/// An answer without a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// An error.
    Refuse(u16),
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// A URL, or a path.
    pub to: String,
    /// The status.
    pub status: u16,
    /// What follows the prefix is appended.
    pub keep_path: bool,
}

const APPENDED: &str = "what follows the path is not appended: the target has a query";

impl Answered {
    /// Whether it differs.
    pub const fn verdict(&self) -> Verdict {
        if self.differs.is_some() { Verdict::Approximated } else { Verdict::Converted }
    }
}

impl Redirect {
    /// As it stands in a Balancer.
    pub fn spec(self) -> api::Redirect {
        api::Redirect { to: self.to, status: self.status, keep_path: self.keep_path }
    }

    /// The same for a part of its paths.
    pub fn below(&self, rest: &str) -> Self {
        let to = if self.keep_path { join(&self.to, rest) } else { self.to.clone() };
        Self { to, ..self.clone() }
    }

    /// The host to which it sends clients by https, if all else of the URL stays.
    pub fn https(&self, prefix: &str) -> Option<&str> {
        let rest = self.to.strip_prefix("https://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let host = host.strip_suffix(":443").unwrap_or(host);
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        (self.keep_path && bare(path) == bare(prefix)).then_some(host)
    }
}

/// Reads `Redirect`, `RedirectPermanent`, `RedirectTemp` or `RedirectMatch`.
///
/// # Errors
/// Why no Balancer does the same.
pub fn read(directive: &Directive, location: Option<&str>) -> Result<Vec<Answered>, String> {
    let args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    let (status, args) = match (directive.name.as_str(), args.as_slice()) {
        ("redirectpermanent", args) => (301, args),
        ("redirecttemp", args) => (302, args),
        (_, [first, rest @ ..]) => status(first).map_or((302, &args[..]), |status| (status, rest)),
        (_, []) => (302, &args[..]),
    };
    let is_redirect = (300..400).contains(&status);
    if directive.name == "redirectmatch" {
        return match (args, is_redirect) {
            ([pattern, target], true) => matched(pattern, target, status),
            ([pattern], false) => refused(pattern, status),
            _ => Err("its form is not understood".to_owned()),
        };
    }
    match (args, is_redirect, location) {
        ([path, to], true, _) if path.starts_with('/') => {
            let keep_path = !to.contains(['?', '#']);
            let differs = (!keep_path).then_some(APPENDED);
            answered(path, false, Redirect { to: (*to).to_owned(), status, keep_path }, differs)
        }
        ([to], true, Some(location)) => {
            let redirect = Redirect { to: (*to).to_owned(), status, keep_path: false };
            answered(location, false, redirect, None)
        }
        ([path], false, _) if path.starts_with('/') => refuse(path, false, status, None),
        ([], false, Some(location)) => refuse(location, false, status, None),
        _ => Err("its form is not understood".to_owned()),
    }
}

/// Reads a `RewriteRule` that redirects or refuses; nothing if it does neither.
pub fn rewrite(
    pattern: &str,
    target: &str,
    flags: &[String],
) -> Option<Result<Vec<Answered>, String>> {
    let value = |short: &str, long: &str| {
        flags.iter().find_map(|flag| {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            (name == short || name == long).then_some(value)
        })
    };
    for (short, long, status) in [("f", "forbidden", 403), ("g", "gone", 410)] {
        if value(short, long).is_some() {
            return Some(refused(pattern, status));
        }
    }
    let is_url = target.starts_with("http://") || target.starts_with("https://");
    let status = match value("r", "redirect") {
        Some("") => 302,
        Some(text) => status(text).unwrap_or(302),
        None if is_url => 302,
        None => return None,
    };
    if !(300..400).contains(&status) {
        return Some(refused(pattern, status));
    }
    Some(matched(pattern, target.strip_suffix('?').unwrap_or(target), status))
}

fn matched(pattern: &str, target: &str, status: u16) -> Result<Vec<Answered>, String> {
    let pattern = if is_everything(pattern) { "^/(.*)$" } else { pattern };
    if !target.contains(['$', '%']) {
        let redirect = Redirect { to: target.to_owned(), status, keep_path: false };
        let plain = Plain::read_all(pattern, "!")?;
        let each = plain.iter().map(|p| {
            // A path alone has no rest, so that only the query is kept, as in Apache.
            let keep_path = p.exact && !target.contains(['?', '#']);
            answered(&p.prefix, p.exact, Redirect { keep_path, ..redirect.clone() }, p.differs)
        });
        return each.collect::<Result<Vec<_>, _>>().map(|all| all.concat());
    }
    // A path stands for the host of the request.
    let local = target.starts_with('/');
    let whole = if local { format!("http://local{target}") } else { target.to_owned() };
    let whole = whole.replace("/%{REQUEST_URI}", "%{REQUEST_URI}");
    if whole.strip_suffix("%{REQUEST_URI}").unwrap_or(&whole).contains("%{") {
        return Err("the target has variables: write a Balancer with `spec.redirect`".to_owned());
    }
    let mut all = Vec::new();
    for Plain { prefix, exact, target, differs } in Plain::read_all(pattern, &whole)? {
        let to = if local { target.replacen("http://local", "", 1) } else { target };
        all.extend(answered(&prefix, exact, Redirect { to, status, keep_path: true }, differs)?);
    }
    Ok(all)
}

/// Whether a pattern matches every path.
pub fn is_everything(pattern: &str) -> bool {
    matches!(
        pattern,
        "^" | ".*"
            | "(.*)"
            | "^.*$"
            | "^(.*)$"
            | "^(.*)"
            | "^.*"
            | "^/?(.*)$"
            | "^/?(.*)"
            | "^/(.*)$"
            | "^/(.*)"
            | "^/"
            | "/?(.*)"
            | "^/?"
            | "^/.*$"
            | "^/.*"
    )
}

fn refused(pattern: &str, status: u16) -> Result<Vec<Answered>, String> {
    let pattern = if is_everything(pattern) { "^/" } else { pattern };
    let plain = Plain::read_all(pattern, "!")?;
    let each = plain.iter().map(|p| refuse(&p.prefix, p.exact, status, p.differs));
    each.collect::<Result<Vec<_>, _>>().map(|all| all.concat())
}

fn answered(
    prefix: &str,
    exact: bool,
    redirect: Redirect,
    differs: Option<&'static str>,
) -> Result<Vec<Answered>, String> {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        return Err(format!(
            "Gibbon redirects with 301, 302, 303, 307 or 308, not {}",
            redirect.status
        ));
    }
    let answer = Answer::Redirect(redirect);
    Ok(vec![Answered { prefix: prefix.to_owned(), exact, answer, differs }])
}

fn refuse(
    prefix: &str,
    exact: bool,
    status: u16,
    differs: Option<&'static str>,
) -> Result<Vec<Answered>, String> {
    if !(400..600).contains(&status) {
        return Err(format!("Gibbon answers with 400 to 599, not {status}"));
    }
    let answer = Answer::Refuse(status);
    Ok(vec![Answered { prefix: prefix.to_owned(), exact, answer, differs }])
}

fn status(text: &str) -> Option<u16> {
    match text.to_ascii_lowercase().as_str() {
        "permanent" => Some(301),
        "temp" => Some(302),
        "seeother" => Some(303),
        "gone" => Some(410),
        number => number.parse().ok().filter(|status| (100..1000).contains(status)),
    }
}

/// A URL with a rest, one slash between them.
fn join(to: &str, rest: &str) -> String {
    if rest.is_empty() {
        return to.to_owned();
    }
    format!("{}/{}", to.trim_end_matches('/'), rest.trim_start_matches('/'))
}
