//! Balancers and their members with all their parameters → the parts of a `BalancerSpec`.

use super::checks::Checks;
use super::known::{self, Known};
use super::report::{Id, Report, Verdict};
use super::site::{Member, Param, Pool, Site, Worker, member_url};
use super::upstream::Upstream;
use crate::api;

/// The most members that one request is sent to.
const MOST_ATTEMPTS: usize = 16;
/// How long a request waits for a member that has its most: without `acquire`, Apache's has no end.
const PATIENCE: api::Duration = api::Duration::from_secs(60);

/// What a balancer says, in Gibbon's terms.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The members.
    pub members: Vec<api::Member>,
    /// Stickiness.
    pub sticky: Option<api::Sticky>,
    /// The method, if one is given.
    pub method: Option<api::Method>,
    /// Failover.
    pub failover: api::Failover,
    /// `timeouts.response`.
    pub response: Option<api::Duration>,
    /// `timeouts.connect`.
    pub connect: Option<api::Duration>,
    /// A member is a Service.
    pub services: bool,
    /// `healthCheck`.
    pub health_check: Option<api::HealthCheck>,
    /// `balancing.queueFor`.
    pub queue_for: Option<api::Duration>,
    /// The members that are asked by TLS.
    pub by_tls: Vec<Id>,
    /// TLS with them.
    pub upstream: Upstream,
}

/// A value that each member may have, where Gibbon has one for all.
#[derive(Debug)]
struct Varied<T> {
    given: Vec<(Id, String, T)>,
    note: &'static str,
}

/// What is collected from the members of one balancer.
#[derive(Debug)]
struct Draft {
    factors: Vec<u32>,
    checks: Checks,
    redirects: Vec<Param>,
    retry: Varied<api::Duration>,
    timeout: Varied<api::Duration>,
    connect: Varied<api::Duration>,
    /// How long a request waits where a member has its most.
    acquire: Varied<api::Duration>,
}

/// How the session is found.
#[derive(Debug, Default)]
struct Session {
    names: Option<String>,
    separator: Option<String>,
    regex: Option<String>,
    no_failover: bool,
}

impl<T: Copy + PartialEq + Ord> Varied<T> {
    const fn new(note: &'static str) -> Self {
        Self { given: Vec::new(), note }
    }

    /// The one value for all members: the given one that `choose` prefers.
    fn one(
        &self,
        members: usize,
        always: Verdict,
        report: &mut Report,
        choose: impl FnOnce(&mut dyn Iterator<Item = T>) -> Option<T>,
    ) -> Option<T> {
        let value = choose(&mut self.given.iter().map(|(_, _, value)| *value))?;
        let same = self.given.len() == members && self.given.iter().all(|(_, _, v)| *v == value);
        for (id, text, own) in &self.given {
            let (verdict, note) = if same {
                (always, self.note.to_owned())
            } else if *own == value {
                (Verdict::Approximated, format!("{}: this one", self.note))
            } else {
                (Verdict::Approximated, format!("{}: another one's", self.note))
            };
            report.part(*id, text, verdict, &note);
        }
        Some(value)
    }
}

impl Parts {
    /// Reads a balancer; `more` are the parameters on its `ProxyPass`.
    pub fn of_pool(
        pool: &Pool,
        more: &[Param],
        path: &str,
        site: &Site,
        services: Option<&str>,
        report: &mut Report,
    ) -> Self {
        let mut parts = Self { upstream: pool.upstream.clone(), ..Self::default() };
        let mut draft = Draft::new();
        for id in &pool.ids {
            report.say(*id, Verdict::Converted, "");
        }
        for member in &pool.members {
            parts.member(&mut draft, member, path, site, services, report);
        }
        draft.finish(&mut parts, site, report);
        let params: Vec<_> = pool.params.iter().chain(more).cloned().collect();
        parts.balancer(&params, report);
        parts
    }

    /// Reads a `ProxyPass` to a URL.
    pub fn of_url(
        url: &str,
        id: Id,
        params: &[Param],
        site: &Site,
        services: Option<&str>,
        report: &mut Report,
    ) -> Self {
        let mut parts = Self::default();
        let mut draft = Draft::new();
        let member = Member { id, url: url.to_owned(), params: params.to_vec() };
        parts.member(&mut draft, &member, "", site, services, report);
        draft.finish(&mut parts, site, report);
        parts
    }

    fn member(
        &mut self,
        draft: &mut Draft,
        member: &Member,
        path: &str,
        site: &Site,
        services: Option<&str>,
        report: &mut Report,
    ) {
        let (url, protocol) = match member_url(&member.url) {
            Ok(known) => known,
            Err(why) => return report.say(member.id, Verdict::Dropped, why),
        };
        report.say(member.id, Verdict::Converted, "");
        let url = join(&url, path);
        let mut params = Vec::new();
        for worker in site.workers_of(&member.url) {
            params.extend(worker.params.iter().cloned());
            self.upstream = worker.upstream.or(&self.upstream);
        }
        params.extend(member.params.iter().cloned());
        draft.checks.member(&url, &params, &site.checks);
        if url.starts_with("https:") {
            self.by_tls.push(member.id);
        }
        let entry = api::Member { protocol, ..draft.member(&url, &params, report) };
        self.push(entry, member.id, services, report);
    }

    fn push(
        &mut self,
        mut member: api::Member,
        id: Id,
        services: Option<&str>,
        report: &mut Report,
    ) {
        let found = services
            .and_then(|namespace| service(member.url.as_deref().unwrap_or_default(), namespace));
        match found {
            Some(Ok((service, path))) => {
                report.say(id, Verdict::Converted, format!("the Service {}", service.name));
                let secure = member.url.take().is_some_and(|url| url.starts_with("https:"));
                member.protocol = member.protocol.or(secure.then_some(api::Protocol::Https));
                member.path = path;
                member.service = Some(service);
                self.services = true;
            }
            Some(Err(why)) => report.say(id, Verdict::Approximated, why),
            None => {}
        }
        self.members.push(member);
    }

    fn balancer(&mut self, params: &[Param], report: &mut Report) {
        let mut session = Session::default();
        for param in params {
            let value = param.value.as_str();
            let Some(known) = known::find(known::BALANCER_PARAMETERS, &param.key) else {
                other(param, report);
                continue;
            };
            let (mut verdict, mut note) = (known.verdict, known.meaning.to_owned());
            match param.key.as_str() {
                "stickysession" => session.names = Some(value.to_owned()),
                "stickysessionsep" => session.separator = Some(value.to_owned()),
                "routeregex" => session.regex = Some(value.to_owned()),
                "nofailover" => session.no_failover = is_on(value),
                "lbmethod" => {
                    let (method, v, n) = method(value);
                    self.method = Some(method);
                    (verdict, note) = (v, n.to_owned());
                }
                "maxattempts" => match value.parse::<usize>() {
                    Ok(more) if more < MOST_ATTEMPTS => {
                        self.failover.attempts = u8::try_from(more + 1).unwrap_or(1);
                    }
                    Ok(_) => {
                        self.failover.attempts = 16;
                        (verdict, note) = (Verdict::Approximated, "16 at most".to_owned());
                    }
                    Err(_) => (verdict, note) = malformed(),
                },
                "failonstatus" => {
                    let all = value.split(',').map(|text| text.trim().parse::<u16>());
                    let (good, odd): (Vec<_>, Vec<_>) =
                        all.partition(|code| matches!(code, Ok(400..=599)));
                    self.failover.statuses = good.into_iter().flatten().collect();
                    if !odd.is_empty() {
                        (verdict, note) =
                            (Verdict::Dropped, "only 400 to 599 take a member out".to_owned());
                    }
                }
                "failontimeout" | "forcerecovery"
                    if is_on(value) == (param.key == "forcerecovery") =>
                {
                    (verdict, note) = (Verdict::Converted, String::new());
                }
                _ => {}
            }
            let note = if verdict == Verdict::Converted { "" } else { &note };
            report.part(param.id, &param.text, verdict, note);
        }
        self.sticky = session.sticky();
    }
}

impl Session {
    fn sticky(self) -> Option<api::Sticky> {
        let names = self.names?;
        let (cookie, parameter) = names.split_once('|').unwrap_or((&names, &names));
        let separator = match self.separator.as_deref() {
            _ if self.regex.is_some() => None,
            Some(text) if text.eq_ignore_ascii_case("off") => None,
            Some(text) => Some(text.to_owned()),
            None => Some(".".to_owned()),
        };
        Some(api::Sticky {
            cookie: Some(cookie.to_owned()),
            parameter: Some(parameter.to_owned()),
            route_regex: self.regex,
            separator,
            failover: !self.no_failover,
            issue: None,
        })
    }
}

impl Draft {
    fn new() -> Self {
        Self {
            factors: Vec::new(),
            checks: Checks::default(),
            redirects: Vec::new(),
            retry: Varied::new(
                "`failover.excludeFor`, one for all members, which grows with each failure in a row",
            ),
            timeout: Varied::new("`timeouts.response`, one for all members"),
            connect: Varied::new("`timeouts.connect`, one for all members"),
            acquire: Varied::new("`balancing.queueFor`, one for all members"),
        }
    }

    fn member(&mut self, url: &str, params: &[Param], report: &mut Report) -> api::Member {
        let mut member = api::Member {
            name: None,
            url: Some(url.to_owned()),
            service: None,
            path: None,
            route: None,
            route_from: None,
            protocol: None,
            weight: 1,
            share: None,
            max_in_flight: None,
            state: api::State::Active,
            tier: 0,
            failover_route: None,
        };
        let (mut factor, mut flags) = (100, String::new());
        for param in params {
            let Some(known) = known::find(known::MEMBER_PARAMETERS, &param.key) else {
                other(param, report);
                continue;
            };
            match self.parameter(param, known, &mut member, &mut factor, &mut flags) {
                Ok(Some((verdict, note))) => report.part(param.id, &param.text, verdict, &note),
                Ok(None) => {}
                Err(()) => {
                    let (verdict, note) = malformed();
                    report.part(param.id, &param.text, verdict, &note);
                }
            }
        }
        member.state = state(&flags);
        self.factors.push(factor);
        member
    }

    /// What becomes of a parameter; nothing if it is said when all members are known.
    fn parameter(
        &mut self,
        param: &Param,
        known: &Known,
        member: &mut api::Member,
        factor: &mut u32,
        flags: &mut String,
    ) -> Result<Option<(Verdict, String)>, ()> {
        let value = param.value.as_str();
        let given = |time: Option<api::Duration>| {
            time.map(|time| (param.id, param.text.clone(), time)).ok_or(())
        };
        let good = Ok(Some((Verdict::Converted, String::new())));
        match param.key.as_str() {
            "route" => {
                member.route = Some(value.to_owned());
                good
            }
            "loadfactor" => {
                *factor = hundredths(value).ok_or(())?;
                good
            }
            "lbset" => {
                member.tier = value.parse().ok().filter(|set| *set < 100).ok_or(())?;
                good
            }
            "redirect" => {
                member.failover_route = Some(value.to_owned());
                self.redirects.push(param.clone());
                Ok(None)
            }
            "status" => Ok(Some(status(value, flags))),
            key if Checks::has(key) => Ok(None),
            "retry" => {
                self.retry.given.push(given(time(value))?);
                Ok(None)
            }
            "timeout" => {
                self.timeout.given.push(given(time(value))?);
                Ok(None)
            }
            "connectiontimeout" => {
                self.connect.given.push(given(time(value))?);
                Ok(None)
            }
            "acquire" => {
                self.acquire.given.push(given(time_in(value, "ms"))?);
                Ok(None)
            }
            "max" => {
                let most = value.parse::<u32>().map_err(|_| ())?;
                // 0 is as many as there are threads.
                member.max_in_flight =
                    Some(u16::try_from(most).unwrap_or(u16::MAX)).filter(|m| *m > 0);
                let known = (known.verdict, known.meaning.to_owned());
                if most == 0 { good } else { Ok(Some(known)) }
            }
            "keepalive" | "disablereuse" if !is_on(value) => good,
            _ if known.verdict == Verdict::Converted => good,
            _ => Ok(Some((known.verdict, known.meaning.to_owned()))),
        }
    }

    fn finish(&self, parts: &mut Parts, site: &Site, report: &mut Report) {
        let members = self.factors.len();
        let divisor = self.factors.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        for (member, factor) in parts.members.iter_mut().zip(&self.factors) {
            member.weight = u16::try_from(factor / divisor).unwrap_or(1);
        }
        self.redirects(parts, report);
        parts.health_check = self.checks.finish(&site.checks, report);
        let least = |all: &mut dyn Iterator<Item = api::Duration>| all.min();
        let most = |all: &mut dyn Iterator<Item = api::Duration>| all.max();
        if let Some(retry) = self.retry.one(members, Verdict::Approximated, report, least) {
            parts.failover.exclude_for = retry;
        }
        parts.response = self.timeout.one(members, Verdict::Converted, report, most);
        parts.connect = self.connect.one(members, Verdict::Converted, report, most);
        let limited = parts.members.iter().any(|member| member.max_in_flight.is_some());
        let wait = self.acquire.one(members, Verdict::Converted, report, most);
        parts.queue_for = limited.then_some(wait.unwrap_or(PATIENCE));
    }
}

impl Draft {
    /// Keeps those that lead to a member.
    fn redirects(&self, parts: &mut Parts, report: &mut Report) {
        let routes: Vec<_> = parts.members.iter().filter_map(|m| m.route.clone()).collect();
        for member in &mut parts.members {
            let own = member.route.clone();
            let leads = |to: &String| Some(to) != own.as_ref() && routes.contains(to);
            member.failover_route = member.failover_route.take().filter(leads);
        }
        for redirect in &self.redirects {
            let note =
                if routes.contains(&redirect.value) { "" } else { "no member has this route" };
            report.part(redirect.id, &redirect.text, Verdict::Converted, note);
        }
    }
}

impl Site {
    /// What `<Proxy http://…>` and `ProxySet http://…` say of a member.
    fn workers_of<'s>(&'s self, url: &'s str) -> impl Iterator<Item = &'s Worker> {
        let bare = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
        let own = self.workers.iter().filter(move |(of, _)| bare(of) == bare(url));
        own.map(|(_, worker)| worker)
    }
}

fn other(param: &Param, report: &mut Report) {
    let (verdict, note) = match param.key.as_str() {
        "nocanon" | "noquery" if param.key == "nocanon" => (Verdict::Converted, ""),
        "interpolate" | "noquery" => (Verdict::Dropped, "Gibbon has no variables"),
        _ => (Verdict::Dropped, "the importer does not know it"),
    };
    report.part(param.id, &param.text, verdict, note);
}

fn malformed() -> (Verdict, String) {
    (Verdict::Dropped, "its value is not understood".to_owned())
}

fn is_on(value: &str) -> bool {
    value.eq_ignore_ascii_case("on")
}

fn method(value: &str) -> (api::Method, Verdict, &'static str) {
    match value.to_ascii_lowercase().as_str() {
        "byrequests" => (api::Method::RoundRobin, Verdict::Converted, ""),
        "bybusyness" => (api::Method::LeastRequests, Verdict::Converted, ""),
        "bytraffic" => (
            api::Method::LeastRequests,
            Verdict::Approximated,
            "Gibbon counts requests under way, not bytes",
        ),
        _ => (
            api::Method::Latency,
            Verdict::Approximated,
            "Gibbon goes by latency, failures and requests under way",
        ),
    }
}

/// `+D-E`, or letters alone: what is set in the end.
fn status(value: &str, flags: &mut String) -> (Verdict, String) {
    let mut verdict = (Verdict::Converted, String::new());
    let mut on = true;
    for letter in value.chars().map(|letter| letter.to_ascii_uppercase()) {
        match letter {
            '+' | '-' => on = letter == '+',
            'D' | 'S' | 'N' | 'H' | 'R' => {
                flags.retain(|flag| flag != letter);
                flags.extend(on.then_some(letter));
            }
            'I' => {
                let note = "failures always take a member out";
                verdict = (Verdict::Approximated, note.to_owned());
            }
            'E' | 'C' => {
                verdict = (Verdict::Approximated, "members begin as usable".to_owned());
            }
            _ => verdict = malformed(),
        }
    }
    verdict
}

/// The state that flags together make.
fn state(flags: &str) -> api::State {
    let states = [
        ("DS", api::State::Disabled),
        ("N", api::State::Draining),
        ("R", api::State::Spare),
        ("H", api::State::Standby),
    ];
    let set = |(letters, _): &&(&str, api::State)| flags.contains(|flag| letters.contains(flag));
    states.iter().find(set).map_or(api::State::Active, |(_, state)| *state)
}

/// A load factor in hundredths, of which there are 100 to 10000.
fn hundredths(value: &str) -> Option<u32> {
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let part: String = part.chars().chain("00".chars()).take(2).collect();
    let factor = whole.parse::<u32>().ok()?.checked_mul(100)? + part.parse::<u32>().ok()?;
    (1..=10_000).contains(&factor).then_some(factor)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A time in seconds, or with `ms`, `s`, `mi` or `h`.
pub fn time(value: &str) -> Option<api::Duration> {
    time_in(value, "s")
}

/// A time in this unit, or in its own.
fn time_in(value: &str, unit: &str) -> Option<api::Duration> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok().filter(|number| *number < 1_000_000_000)?;
    let own = value[digits..].to_ascii_lowercase();
    let seconds = match if own.is_empty() { unit } else { &own } {
        "ms" => return Some(api::Duration::from_millis(number)),
        "s" => number,
        "mi" | "min" => number * 60,
        "h" => number * 3600,
        _ => return None,
    };
    // Longer ones are not for people.
    Some(api::Duration::from_secs(seconds.min(86_400 * 365)))
}

/// A member's URL with the path that the `ProxyPass` adds.
fn join(url: &str, path: &str) -> String {
    match path {
        "" | "/" => url.to_owned(),
        path => format!("{}{path}", url.trim_end_matches('/')),
    }
}

/// `http://app.shop.svc.cluster.local:8080/x` → the Service `app` of the namespace `shop`.
fn service(url: &str, namespace: &str) -> Option<Result<(api::Service, Option<String>), String>> {
    let plain = url.strip_prefix("http://").map(|rest| (rest, "80"));
    let (rest, port) = plain.or_else(|| Some((url.strip_prefix("https://")?, "443")))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = authority.split_once(':').unwrap_or((authority, port));
    let labels: Vec<_> = host.split('.').collect();
    let at = labels.iter().position(|label| label.eq_ignore_ascii_case("svc"))?;
    Some(match labels.get(..at)? {
        [name, of] if of.eq_ignore_ascii_case(namespace) => match port.parse() {
            Ok(port) => {
                let service =
                    api::Service { name: name.to_ascii_lowercase(), port: api::Port::Number(port) };
                let path = (path.len() > 1).then(|| path.to_owned());
                Ok((service, path))
            }
            Err(_) => Err("its port is no number, so it stays a URL".to_owned()),
        },
        [_, of] => Err(format!("its Service is in namespace {of}, so it stays a URL")),
        _ => Err("it is one pod of a Service, so it stays a URL".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_a_state() {
        for (flags, state, verdict) in [
            ("D", api::State::Disabled, Verdict::Converted),
            ("+H", api::State::Standby, Verdict::Converted),
            ("+H-H", api::State::Active, Verdict::Converted),
            ("+N", api::State::Draining, Verdict::Converted),
            ("+D+H", api::State::Disabled, Verdict::Converted),
            ("-E", api::State::Active, Verdict::Approximated),
            ("R", api::State::Spare, Verdict::Converted),
            ("HN", api::State::Draining, Verdict::Converted),
            ("x", api::State::Active, Verdict::Dropped),
        ] {
            let mut set = String::new();
            assert_eq!((status(flags, &mut set).0, self::state(&set)), (verdict, state), "{flags}");
        }
    }

    #[test]
    fn times_and_factors_are_read() {
        let times = ["5", "500ms", "2s", "1mi", "1h", "x", "5d", ""];
        let millis = times.map(|text| time(text).map(|time| time.get().as_millis()));
        let expected = [Some(5000), Some(500), Some(2000), Some(60_000), Some(3_600_000)];
        assert_eq!(millis[..5], expected);
        assert_eq!(millis[5..], [None, None, None]);
        let factors = ["1", "2.5", "100", "0", "101", "1.256", "x"].map(hundredths);
        let expected = [Some(100), Some(250), Some(10_000), None, None, Some(125), None];
        assert_eq!(factors, expected);
    }

    #[test]
    fn a_name_in_the_cluster_is_a_service() {
        let read = |url| service(url, "shop").map(|found| found.map(|(s, p)| (s.name, s.port, p)));
        let port = api::Port::Number(8080);
        let path = Some("/x".to_owned());
        let expected = Ok(("app".to_owned(), port, path));
        assert_eq!(read("http://app.shop.svc.cluster.local:8080/x"), Some(expected));
        assert_eq!(read("http://app.shop.svc/").unwrap().unwrap().1, api::Port::Number(80));
        assert!(read("http://app.other.svc/").unwrap().is_err());
        assert!(read("http://app-0.app.shop.svc/").unwrap().is_err());
        assert_eq!(read("http://app.site.com/"), None);
        assert_eq!(read("https://app.shop.svc/").unwrap().unwrap().1, api::Port::Number(443));
    }
}
