//! `RewriteCond` before a `RewriteRule`, as far as it is about TLS or the host.

use regex::{Regex, RegexBuilder};

use super::pattern::literals;
use super::read::Directive;
use super::secure;

/// The most that a compiled pattern may take.
const LARGEST: usize = 1 << 16;

/// What the conditions before a rule ask for together.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    plain: bool,
    other: bool,
    hosts: Vec<Host>,
}

/// A condition on the host.
#[derive(Clone, Debug)]
struct Host {
    pattern: Regex,
    negated: bool,
    /// The next one may hold instead.
    or: bool,
    /// The hosts that the pattern stands for, if it is no more than a list of them.
    names: Option<Vec<String>>,
}

impl Conditions {
    /// Takes a condition in; false if it is about something else.
    pub fn add(&mut self, directive: &Directive) -> bool {
        if secure::asks_for_plain(directive) {
            self.plain = true;
            return true;
        }
        let host = Host::read(directive);
        self.other |= host.is_none();
        self.hosts.extend(host);
        !self.other
    }

    /// Whether they only ask for a request without TLS.
    pub const fn is_plain(&self) -> bool {
        self.plain && !self.other && self.hosts.is_empty()
    }

    /// Those of a site's hosts for which they hold; nothing if that is not all that they ask for.
    pub fn hosts(&self, names: &[String]) -> Option<Vec<String>> {
        if self.other || self.plain {
            return None;
        }
        // A wildcard stands for names that may hold or not.
        if names.is_empty() || names.iter().any(|name| name.starts_with('*')) {
            return self.named().filter(|_| names.is_empty());
        }
        Some(names.iter().filter(|name| self.hold(name)).cloned().collect())
    }

    /// The hosts that they name, where they do nothing else.
    fn named(&self) -> Option<Vec<String>> {
        let (last, others) = self.hosts.split_last()?;
        if last.or || !others.iter().all(|host| host.or) {
            return None;
        }
        let names = self.hosts.iter().map(|host| host.names.clone()).collect::<Option<Vec<_>>>();
        names.map(|names| names.concat())
    }

    fn hold(&self, name: &str) -> bool {
        let mut any = false;
        for host in &self.hosts {
            any |= host.pattern.is_match(name) != host.negated;
            if !host.or {
                if !any {
                    return false;
                }
                any = false;
            }
        }
        true
    }
}

impl Host {
    fn read(directive: &Directive) -> Option<Self> {
        let [tested, pattern, flags @ ..] = directive.args.as_slice() else { return None };
        let known = ["%{HTTP_HOST}", "%{SERVER_NAME}"];
        if !known.iter().any(|known| tested.eq_ignore_ascii_case(known)) {
            return None;
        }
        let flags = flags.concat().to_ascii_lowercase();
        let has = |short: &str, long: &str| {
            let bare = flags.trim_matches(['[', ']']);
            bare.split(',').any(|flag| flag.trim() == short || flag.trim() == long)
        };
        let (negated, pattern) =
            pattern.strip_prefix('!').map_or((false, pattern.as_str()), |rest| (true, rest));
        let pattern = match pattern.strip_prefix('=') {
            Some(text) => format!("^{}$", regex::escape(text)),
            None if pattern.starts_with(['<', '>', '-']) => return None,
            None => pattern.to_owned(),
        };
        // Hosts are in small letters here, whatever the case of the pattern.
        let regex = RegexBuilder::new(&pattern).case_insensitive(true).size_limit(LARGEST).build();
        let names = literals(&pattern).filter(|_| !negated);
        Some(Self { pattern: regex.ok()?, negated, or: has("or", "ornext"), names })
    }
}
