//! `Require`, and `Order` with `Allow` and `Deny`, as far as they are about addresses → `spec.access`.
//!
//! What Gibbon cannot ask for, such as a password, lets nobody in: what was closed stays closed.

use ipnet::{IpNet, Ipv4Net};

use super::read::Directive;
use super::report::{Id, Report, Verdict};
use crate::api;
use crate::table::access::parse_network;

/// Every address of either family.
const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];
const LOCAL: [&str; 2] = ["127.0.0.0/8", "::1/128"];
const BY_METHOD: &str = "Gibbon does not choose by method: let a member decide";
/// The most networks that fit into a list.
const MOST: usize = 256;

/// What the directives of one section say of clients.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    requires: Vec<Requirement>,
    order: Option<(Id, bool)>,
    allow: Vec<(Id, Host)>,
    deny: Vec<(Id, Host)>,
    any: Option<Id>,
}

/// A `Require`, or a section of them.
#[derive(Clone, Debug)]
enum Requirement {
    One(Id, bool, Who),
    Any(Id, Vec<Requirement>),
    All(Id, Vec<Requirement>),
    None(Id, Vec<Requirement>),
}

/// Whom a `Require` is about.
#[derive(Clone, Debug)]
enum Who {
    All,
    Nobody,
    Networks(Vec<IpNet>),
    /// Something that Gibbon does not know.
    Other,
}

/// What an `Allow` or `Deny` is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    All,
    Network(IpNet),
    Other,
}

/// Clients: all of these, or all, without those.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clients {
    only: Option<Vec<IpNet>>,
    without: Vec<IpNet>,
}

/// Clients, and whether they are exactly those that Apache lets in: never more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Permitted {
    clients: Clients,
    exact: bool,
}

impl Guard {
    /// Whether a directive is one of these.
    pub fn has(name: &str) -> bool {
        matches!(
            name,
            "require"
                | "order"
                | "allow"
                | "deny"
                | "satisfy"
                | "<requireany"
                | "<requireall"
                | "<requirenone"
                | "sslverifyclient"
                | "sslrequire"
                | "<limit"
                | "<limitexcept"
        )
    }

    /// Takes a directive in.
    pub fn add(&mut self, directive: &Directive, report: &mut Report) {
        let (id, args) = (directive.id, directive.args.as_slice());
        let first = args.first().map(|arg| arg.to_ascii_lowercase()).unwrap_or_default();
        match directive.name.as_str() {
            "sslverifyclient" if first.starts_with("require") => {
                self.requires.push(Requirement::One(id, false, Who::Other));
            }
            "sslverifyclient" if first == "none" => report.say(id, Verdict::Converted, ""),
            "sslverifyclient" => {
                report.say(id, Verdict::Dropped, "write it into the virtual host");
            }
            "sslrequire" => self.requires.push(Requirement::One(id, false, Who::Other)),
            "<limit" | "<limitexcept" => self.by_method(directive, report),
            "order" => {
                let order = first.replace(' ', "");
                // `mutual-failure` is an old name of the same.
                self.order = Some((id, order != "deny,allow"));
            }
            "allow" | "deny" if first == "from" => {
                let list = if directive.name == "allow" { &mut self.allow } else { &mut self.deny };
                list.extend(args[1..].iter().map(|host| (id, self::host(host))));
            }
            "satisfy" if first == "any" => self.any = Some(id),
            "satisfy" => report.say(id, Verdict::Converted, ""),
            name if name.starts_with("<require") || name == "require" => {
                self.requires.push(requirement(directive, report));
            }
            _ => report.say(id, Verdict::Dropped, "its form is not understood"),
        }
    }

    /// One that lets nobody in.
    pub fn closed(id: Id) -> Self {
        Self { requires: vec![Requirement::One(id, false, Who::Other)], ..Self::default() }
    }

    /// What shuts some methods out shuts all of them out: Gibbon does not choose by method.
    fn by_method(&mut self, section: &Directive, report: &mut Report) {
        let mut inner = Self::default();
        for directive in &section.inner {
            if Self::has(&directive.name) {
                inner.add(directive, report);
            } else {
                report.say(directive.id, Verdict::Dropped, BY_METHOD);
            }
        }
        let open = inner.permitted() == Permitted::all();
        let (verdict, note) = if open {
            (Verdict::Converted, "it shuts nobody out")
        } else {
            (Verdict::Dropped, BY_METHOD)
        };
        for id in inner.ids().into_iter().chain([section.id]) {
            report.say(id, verdict, note);
        }
        if !open {
            self.requires.push(Requirement::One(section.id, false, Who::Other));
        }
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.requires.is_empty()
            && self.order.is_none()
            && self.allow.is_empty()
            && self.deny.is_empty()
    }

    /// The clients that are let in; none if all are.
    pub fn access(&self, report: &mut Report) -> Option<api::Access> {
        let permitted = self.permitted();
        let (verdict, note) = if permitted.exact {
            (Verdict::Converted, "`spec.access`")
        } else if permitted.clients == Clients::nobody() {
            (
                Verdict::Dropped,
                "Gibbon asks for addresses alone, so `spec.access` lets nobody in: open it, and let \
                 the members ask for the rest",
            )
        } else {
            (
                Verdict::Approximated,
                "Gibbon asks for addresses alone: `spec.access` lets fewer in than Apache",
            )
        };
        for id in self.ids() {
            report.say(id, verdict, note);
        }
        permitted.clients.access()
    }

    /// Says that what stands nearer counts, if nothing else was said.
    pub fn yield_to_another(&self, report: &mut Report) {
        for id in self.ids() {
            if !report.is_said(id) {
                report.say(id, Verdict::Converted, "what a section within says counts");
            }
        }
    }

    fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<_> = self.order.iter().map(|(id, _)| *id).chain(self.any).collect();
        ids.extend(self.allow.iter().chain(&self.deny).map(|(id, _)| *id));
        for requirement in &self.requires {
            requirement.ids(&mut ids);
        }
        ids
    }

    fn permitted(&self) -> Permitted {
        let hosts = (self.order.is_some() || !self.allow.is_empty() || !self.deny.is_empty())
            .then(|| self.by_host());
        let required = (!self.requires.is_empty()).then(|| any(&self.requires));
        match (hosts, required) {
            (Some(a), Some(b)) if self.any.is_some() => a.or(b),
            (Some(a), Some(b)) => a.and(b),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Permitted::all(),
        }
    }

    /// `Order`: the second word is tried last, and is the default. Without it `Deny` comes first.
    fn by_host(&self) -> Permitted {
        let side = |list: &[(Id, Host)]| {
            let all = list.iter().any(|(_, host)| *host == Host::All);
            let networks = list.iter().filter_map(|(_, host)| match host {
                Host::Network(network) => Some(*network),
                _ => None,
            });
            (all, networks.collect::<Vec<_>>(), list.iter().any(|(_, host)| *host == Host::Other))
        };
        let (allow_all, allowed, odd_allow) = side(&self.allow);
        let (deny_all, denied, odd_deny) = side(&self.deny);
        let deny_wins = self.order.is_some_and(|(_, deny_last)| deny_last);
        let only = Clients { only: Some(allowed.clone()), without: Vec::new() };
        let allowed_clients = if allow_all { Clients::all() } else { only };
        let rest = if deny_all || (odd_deny && !allow_all) {
            Clients::nobody()
        } else {
            Clients { only: None, without: denied }
        };
        let exact = !(odd_allow || odd_deny);
        if deny_wins {
            let mut both = Permitted { clients: rest, exact }.and(allowed_clients.into());
            if odd_deny {
                both = Permitted { clients: Clients::nobody(), exact: false };
            }
            return both;
        }
        Permitted { clients: rest, exact }.or(allowed_clients.into())
    }
}

impl Requirement {
    fn ids(&self, to: &mut Vec<Id>) {
        let (id, inner) = match self {
            Self::One(id, ..) => (*id, &[][..]),
            Self::Any(id, inner) | Self::All(id, inner) | Self::None(id, inner) => {
                (*id, inner.as_slice())
            }
        };
        to.push(id);
        for requirement in inner {
            requirement.ids(to);
        }
    }

    fn permitted(&self) -> Permitted {
        match self {
            Self::One(_, negated, who) => {
                let clients = match who {
                    Who::All => Clients::all(),
                    Who::Nobody => Clients::nobody(),
                    Who::Networks(networks) => {
                        Clients { only: Some(networks.clone()), without: Vec::new() }
                    }
                    Who::Other => {
                        return Permitted { clients: Clients::nobody(), exact: false };
                    }
                };
                let one = Permitted::from(clients);
                if *negated { one.not() } else { one }
            }
            Self::Any(_, inner) => any(inner),
            Self::All(_, inner) => inner
                .iter()
                .map(Self::permitted)
                .reduce(Permitted::and)
                .unwrap_or_else(Permitted::all),
            Self::None(_, inner) => any(inner).not(),
        }
    }
}

/// Those that stand beside each other: one is enough, but a negation alone lets nobody in.
fn any(requirements: &[Requirement]) -> Permitted {
    let is_negation =
        |r: &&Requirement| matches!(r, Requirement::One(_, true, _) | Requirement::None(..));
    let (negated, positive): (Vec<_>, Vec<_>) =
        requirements.iter().partition(|requirement| is_negation(requirement));
    let positive = positive.into_iter().map(Requirement::permitted).reduce(Permitted::or);
    let negated = negated.into_iter().map(Requirement::permitted).reduce(Permitted::and);
    match (positive, negated) {
        (Some(positive), Some(negated)) => positive.and(negated),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Permitted::all(),
    }
}

impl From<Clients> for Permitted {
    fn from(clients: Clients) -> Self {
        Self { clients, exact: true }
    }
}

impl Permitted {
    const fn all() -> Self {
        Self { clients: Clients::all(), exact: true }
    }

    fn and(self, other: Self) -> Self {
        let exact = self.exact && other.exact;
        Self { clients: self.clients.and(other.clients), exact }
    }

    /// Either; where no two lists say it, fewer.
    fn or(self, other: Self) -> Self {
        let (a, b) = (self.clients, other.clients);
        let exact = self.exact && other.exact;
        for (one, two) in [(&a, &b), (&b, &a)] {
            if *one == Clients::all() || *two == Clients::nobody() {
                // Who is let in anyhow need not be asked for more.
                let exact = exact || *one == Clients::all();
                return Self { clients: one.clone(), exact };
            }
        }
        match (a, b) {
            (
                Clients { only: Some(mut one), without: none },
                Clients { only: Some(two), without: nobody },
            ) if none.is_empty() && nobody.is_empty() => {
                one.extend(two);
                Self { clients: Clients { only: Some(one), without: none }, exact }
            }
            (all @ Clients { only: None, .. }, Clients { only: Some(more), .. })
            | (Clients { only: Some(more), .. }, all @ Clients { only: None, .. }) => {
                let is_in = more.iter().all(|m| !all.without.iter().any(|w| overlap(w, m)));
                Self { clients: all, exact: exact && is_in }
            }
            (a, _) => Self { clients: a, exact: false },
        }
    }

    /// Those that are not let in; where no two lists say it, nobody.
    fn not(self) -> Self {
        if !self.exact {
            return Self { clients: Clients::nobody(), exact: false };
        }
        match self.clients {
            Clients { only: Some(only), without } if without.is_empty() => {
                Clients { only: None, without: only }.into()
            }
            Clients { only: None, without } => {
                Clients { only: Some(without), without: Vec::new() }.into()
            }
            Clients { .. } => Self { clients: Clients::nobody(), exact: false },
        }
    }
}

impl Clients {
    const fn all() -> Self {
        Self { only: None, without: Vec::new() }
    }

    const fn nobody() -> Self {
        Self { only: Some(Vec::new()), without: Vec::new() }
    }

    fn and(self, other: Self) -> Self {
        let only = match (self.only, other.only) {
            (Some(one), Some(two)) => {
                // Two networks overlap only if one is in the other.
                let both = |a: &IpNet| {
                    let inner = two.iter().filter(move |b| overlap(a, b));
                    inner.map(|b| if a.contains(b) { *b } else { *a }).collect::<Vec<_>>()
                };
                Some(one.iter().flat_map(both).collect())
            }
            (one, two) => one.or(two),
        };
        Self { only, without: [self.without, other.without].concat() }
    }

    fn access(self) -> Option<api::Access> {
        let texts = |networks: &[IpNet]| {
            let mut texts: Vec<_> = networks.iter().map(ToString::to_string).collect();
            texts.sort();
            texts.dedup();
            texts
        };
        let nobody =
            || api::Access { allow: Vec::new(), deny: EVERYBODY.map(str::to_owned).into() };
        match self.only.as_deref().map(texts) {
            Some(allow) if allow.is_empty() || allow.len() > MOST => Some(nobody()),
            None if self.without.is_empty() => None,
            allow => {
                let deny = texts(&self.without);
                let fits = deny.len() <= MOST;
                let allow = allow.unwrap_or_default();
                Some(if fits { api::Access { allow, deny } } else { nobody() })
            }
        }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn requirement(directive: &Directive, report: &mut Report) -> Requirement {
    let id = directive.id;
    let inner = |report: &mut Report| {
        let mut all = Vec::new();
        for inner in &directive.inner {
            if inner.name.starts_with("<require") || inner.name == "require" {
                all.push(requirement(inner, report));
            } else {
                report.say(inner.id, Verdict::Dropped, "it is no Require");
            }
        }
        all
    };
    match directive.name.as_str() {
        "<requireany" => Requirement::Any(id, inner(report)),
        "<requireall" => Requirement::All(id, inner(report)),
        "<requirenone" => Requirement::None(id, inner(report)),
        _ => {
            let lower: Vec<_> = directive.args.iter().map(|arg| arg.to_ascii_lowercase()).collect();
            let words: Vec<_> = lower.iter().map(String::as_str).collect();
            let (negated, words) = match words.as_slice() {
                ["not", rest @ ..] => (true, rest),
                all => (false, all),
            };
            let networks =
                |texts: &[&str]| texts.iter().map(|text| network(text)).collect::<Option<Vec<_>>>();
            let who = match words {
                ["all", "granted"] => Who::All,
                ["all", "denied"] => Who::Nobody,
                ["local"] => networks(&LOCAL).map_or(Who::Other, Who::Networks),
                ["ip", addresses @ ..] => networks(addresses).map_or(Who::Other, Who::Networks),
                _ => Who::Other,
            };
            Requirement::One(id, negated, who)
        }
    }
}

fn host(text: &str) -> Host {
    if text.eq_ignore_ascii_case("all") {
        return Host::All;
    }
    network(text).map_or(Host::Other, Host::Network)
}

/// `10.0.0.0/8`, `10.1.2.3`, `10.1`, `10.1.0.0/255.255.0.0`, or those of IPv6.
fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    if let (Ok(address), Ok(mask)) = (address.parse(), length.parse()) {
        return Ipv4Net::with_netmask(address, mask).ok().map(|net| IpNet::V4(net.trunc()));
    }
    let parts: Vec<_> = address.trim_end_matches('.').split('.').collect();
    let partial = length.is_empty() && parts.len() < 4 && !address.contains(':');
    let whole = if partial {
        let zeros = [".0"; 4][parts.len()..].concat();
        format!("{}{zeros}/{}", parts.join("."), parts.len() * 8)
    } else {
        text.to_owned()
    };
    parse_network(&whole).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Options, apache};
    use super::*;

    /// What stands in a `<Location>`, and the access that it leads to: lists, and the worst verdict.
    fn access(lines: &str) -> (Vec<String>, Vec<String>, Verdict) {
        let text = format!(
            "ServerName a.org\n<Location /a>\n{lines}\n</Location>\nProxyPass /a http://h/\n"
        );
        let files = [("httpd.conf".to_owned(), text)];
        let outcome = apache(&files, &|_| Ok(Vec::new()), &Options::default()).unwrap();
        let access = outcome.balancers[0].1.spec.access.clone().unwrap_or_default();
        let worst = outcome.report.entries()[1..].iter().filter(|e| e.place.line > 2);
        (access.allow, access.deny, worst.map(|entry| entry.verdict).max().unwrap())
    }

    #[test]
    fn what_is_about_addresses_is_the_same() {
        let everybody = "0.0.0.0/0 ::/0";
        for (lines, allow, deny) in [
            ("Require all granted", "", ""),
            ("Require all denied", "", everybody),
            (
                "Require ip 10.1 192.0.2.7 2001:db8::/32",
                "10.1.0.0/16 192.0.2.7/32 2001:db8::/32",
                "",
            ),
            ("Require local\nRequire ip 10.", "10.0.0.0/8 127.0.0.0/8 ::1/128", ""),
            ("Require not ip 10.0.0.0/255.0.0.0\nRequire all granted", "", "10.0.0.0/8"),
            (
                "<RequireAll>\nRequire ip 10.1.0.0/16 192.0.2\nRequire ip 10\n</RequireAll>",
                "10.1.0.0/16",
                "",
            ),
            (
                "<RequireAll>\nRequire all granted\n<RequireNone>\nRequire ip 10\n</RequireNone>\n\
                 </RequireAll>",
                "",
                "10.0.0.0/8",
            ),
            ("Require all granted\nRequire valid-user", "", ""),
            ("Order deny,allow\nDeny from all\nAllow from 10.1.2.3", "10.1.2.3/32", ""),
            (
                "Order allow,deny\nAllow from all\nDeny from 10.1 10.2",
                "",
                "10.1.0.0/16 10.2.0.0/16",
            ),
            ("Order Allow,Deny\nAllow from 10\nDeny from 10.1", "10.0.0.0/8", "10.1.0.0/16"),
            ("Order allow,deny", "", everybody),
            ("Order deny,allow\nDeny from all", "", everybody),
            ("Order deny,allow\nDeny from 10\nAllow from 192.0.2.1", "", "10.0.0.0/8"),
            ("Allow from all", "", ""),
        ] {
            let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(access(lines), (split(allow), split(deny), Verdict::Converted), "{lines}");
        }
    }

    #[test]
    fn what_is_about_more_lets_fewer_in_and_never_more() {
        let nobody = EVERYBODY.map(str::to_owned).to_vec();
        for lines in [
            "Require valid-user",
            "Require host site.com",
            "Require not host site.com\nRequire all granted",
            "<RequireAll>\nRequire valid-user\nRequire ip 10\n</RequireAll>",
            "Order deny,allow\nDeny from all\nAllow from site.com env=ok",
            "Order allow,deny\nAllow from all\nDeny from site.com",
            "Require valid-user\nOrder deny,allow\nDeny from all\nAllow from 10",
        ] {
            assert_eq!(access(lines), (Vec::new(), nobody.clone(), Verdict::Dropped), "{lines}");
        }
        let ten = vec!["10.0.0.0/8".to_owned()];
        for lines in [
            "Require valid-user\nRequire ip 10",
            "Satisfy any\nRequire valid-user\nOrder deny,allow\nDeny from all\nAllow from 10",
        ] {
            assert_eq!(access(lines), (ten.clone(), Vec::new(), Verdict::Approximated), "{lines}");
        }
        let lines = "Order deny,allow\nDeny from 10\nAllow from 10.1";
        assert_eq!(access(lines), (Vec::new(), ten, Verdict::Approximated));
    }
}
