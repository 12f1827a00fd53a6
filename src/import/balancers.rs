//! Sites → Balancers: which path goes where, what of the rest applies to it, what it is called.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Options;
use super::members::{Parts, time};
use super::report::{Id, Report, Verdict};
use super::site::{Edit, Mapping, Settings, Site, To, balancer};
use crate::api;
use crate::source::balancer::{Place, rule};
use crate::source::policy::{Namespaces, Policy};

/// The most that fits in a name.
const LONGEST_NAME: usize = 63;

/// A Balancer and the directives that it came from.
#[derive(Clone, Debug)]
pub struct Made {
    /// The directive.
    pub id: Id,
    /// The Balancer.
    pub balancer: api::Balancer,
}

/// Makes the Balancers of a configuration. The first site is the server itself.
pub fn balancers(sites: &[Site], options: &Options, report: &mut Report) -> Vec<Made> {
    let mut maker = Maker {
        options,
        latency: sites.iter().any(Site::is_ape),
        several: sites.len() > 2,
        names: BTreeSet::new(),
        served: BTreeSet::new(),
        made: Vec::new(),
    };
    let Some((server, hosts)) = sites.split_first() else { return Vec::new() };
    if hosts.is_empty() {
        maker.site(server, true, report);
    }
    for site in hosts {
        maker.site(&server.with(site), false, report);
    }
    for (id, _) in server.names.iter().filter(|_| !hosts.is_empty()) {
        report.say(*id, Verdict::Converted, "requests are for the virtual hosts");
    }
    maker.made
}

struct Maker<'o> {
    options: &'o Options,
    /// Ape's default, not Apache's.
    latency: bool,
    /// There are several sites, so that names need theirs.
    several: bool,
    names: BTreeSet<String>,
    /// Hosts and paths that are served already.
    served: BTreeSet<(String, String)>,
    made: Vec<Made>,
}

impl Site {
    fn is_ape(&self) -> bool {
        let has = |params: &[super::site::Param]| params.iter().any(|p| p.key == "routeregex");
        let mappings = self.mappings.iter().chain(&self.located);
        mappings.map(|m| &m.params).any(|p| has(p)) || self.pools.values().any(|p| has(&p.params))
    }

    /// A virtual host with what stands outside of it, which comes first.
    fn with(&self, site: &Self) -> Self {
        let mut whole = self.clone();
        whole.names.clone_from(&site.names);
        whole.mappings.extend(site.mappings.iter().cloned());
        whole.located.splice(0..0, site.located.iter().cloned());
        whole.settings.extend(site.settings.iter().cloned());
        whole.pools.extend(site.pools.iter().map(|(name, pool)| (name.clone(), pool.clone())));
        whole.workers.extend(site.workers.iter().cloned());
        whole
    }
}

impl Settings {
    /// What applies here, and then there.
    fn and(&mut self, more: &Self) {
        self.ids.extend(&more.ids);
        self.reversals.extend(more.reversals.iter().cloned());
        self.cookie_domains.extend(more.cookie_domains.iter().cloned());
        self.cookie_paths.extend(more.cookie_paths.iter().cloned());
        self.request.extend(more.request.iter().cloned());
        self.response.extend(more.response.iter().cloned());
        self.preserve_host = more.preserve_host.or(self.preserve_host);
        self.add_headers = more.add_headers.or(self.add_headers);
        for (own, other) in [
            (&mut self.proxy_timeout, &more.proxy_timeout),
            (&mut self.timeout, &more.timeout),
            (&mut self.via, &more.via),
        ] {
            if other.is_some() {
                own.clone_from(other);
            }
        }
        if more.issue.is_some() {
            self.issue.clone_from(&more.issue);
        }
    }
}

/// Whether every path that begins with `inner` begins with `outer`, in whole segments.
fn covers(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || outer.ends_with('/'))
}

impl Maker<'_> {
    fn site(&mut self, site: &Site, server: bool, report: &mut Report) {
        let hosts = hosts(site, server, report);
        let all: Vec<&Mapping> = site.located.iter().chain(&site.mappings).collect();
        let mut kept: Vec<&Mapping> = Vec::new();
        for mapping in &all {
            match kept.iter().find(|earlier| covers(&earlier.prefix, &mapping.prefix)) {
                Some(earlier) => {
                    let note = format!("never reached: {} comes first", earlier.prefix);
                    report.say(mapping.id, Verdict::Converted, note);
                }
                None => kept.push(mapping),
            }
        }
        let first = self.made.len();
        for (at, mapping) in kept.iter().enumerate() {
            let settings = site.settings_of(&mapping.prefix);
            match &mapping.to {
                To::Nowhere => {
                    let later = &kept[at + 1..];
                    if later.iter().any(|other| covers(&other.prefix, &mapping.prefix)) {
                        self.mapping(mapping, site, &hosts, &settings, report);
                    } else {
                        report.say(mapping.id, Verdict::Converted, "nothing else leads there");
                    }
                }
                _ => self.mapping(mapping, site, &hosts, &settings, report),
            }
        }
        for (id, _) in &site.names {
            report.say(*id, Verdict::Converted, "");
        }
        self.reversals(first, site, report);
    }

    fn mapping(
        &mut self,
        mapping: &Mapping,
        site: &Site,
        hosts: &[String],
        settings: &Settings,
        report: &mut Report,
    ) {
        let services = self.options.services.as_deref();
        let nowhere = mapping.to == To::Nowhere;
        let (parts, called) = match &mapping.to {
            To::Nowhere => (Parts::default(), format!("not-{}", mapping.prefix)),
            To::Url(url) => {
                let called = mapping.prefix.clone();
                let parts = Parts::of_url(url, mapping.id, &mapping.params, site, services, report);
                (parts, called)
            }
            To::Pool(name, path) => {
                let Some(pool) = site.pools.get(name).filter(|pool| !pool.members.is_empty())
                else {
                    let note = format!("balancer://{name} has no members");
                    return report.say(mapping.id, Verdict::Dropped, note);
                };
                if path.is_empty() && mapping.prefix.len() > 1 && mapping.prefix.ends_with('/') {
                    let note = "Apache answers 500: it looks for a balancer with the rest of the \
                                path in its name";
                    report.say(mapping.id, Verdict::Approximated, note);
                }
                let parts = Parts::of_pool(pool, &mapping.params, path, site, services, report);
                (parts, name.clone())
            }
        };
        if parts.members.is_empty() && !nowhere {
            return report.say(mapping.id, Verdict::Dropped, "no member of it can be used");
        }
        let twice: Vec<_> = self.claim(hosts, &mapping.prefix);
        let hosts: Vec<_> = hosts.iter().filter(|host| !twice.contains(host)).cloned().collect();
        if !twice.is_empty() {
            let note = format!(
                "{} and this path are served by an earlier virtual host: Gibbon does not choose \
                 by port",
                if twice[0].is_empty() { "any host".to_owned() } else { twice.join(", ") }
            );
            let all = hosts.is_empty();
            let verdict = if all { Verdict::Dropped } else { Verdict::Approximated };
            report.say(mapping.id, verdict, note);
            if all {
                return;
            }
        }
        let name = self.name(&called, site);
        let spec = if nowhere {
            refusal(mapping, hosts)
        } else {
            self.spec(mapping, hosts, parts, settings, report)
        };
        let balancer = api::Balancer {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.options.services.clone(),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        };
        let everything = Policy {
            any_host: Namespaces::of(&["*".to_owned()]),
            url_members: Namespaces::of(&["*".to_owned()]),
            share_hosts: true,
        };
        match rule(&balancer, Place::Cluster(&everything)) {
            Ok(_) => {
                report.say(mapping.id, Verdict::Converted, format!("Balancer {name}"));
                self.made.push(Made { id: mapping.id, balancer });
            }
            Err(problems) => {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                report.say(mapping.id, Verdict::Dropped, problems.join(", "));
            }
        }
    }

    /// Hosts that have this path already.
    fn claim(&mut self, hosts: &[String], path: &str) -> Vec<String> {
        let any = [String::new()];
        let hosts = if hosts.is_empty() { &any[..] } else { hosts };
        let taken = |host: &&String| !self.served.insert(((*host).clone(), path.to_owned()));
        hosts.iter().filter(taken).cloned().collect()
    }

    fn spec(
        &self,
        mapping: &Mapping,
        hosts: Vec<String>,
        parts: Parts,
        settings: &Settings,
        report: &mut Report,
    ) -> api::BalancerSpec {
        let mut sticky = parts.sticky;
        if let Some((id, issue)) = &settings.issue {
            issued(*id, issue, &mut sticky, report);
        }
        let method = parts.method.or_else(|| {
            (!self.latency && parts.members.len() > 1).then_some(api::Method::RoundRobin)
        });
        let mut timeouts = api::Timeouts::default();
        timeouts.connect = parts.connect.unwrap_or(timeouts.connect);
        timeouts.response = parts.response.or_else(|| seconds(settings, report));
        let reverse = reverse(settings, report);
        for id in &settings.ids {
            report.say(*id, Verdict::Converted, "");
        }
        let preserve = settings.preserve_host.map(|(id, on)| {
            report.say(id, Verdict::Converted, "");
            on
        });
        api::BalancerSpec {
            class_name: None,
            preserve_host: preserve.filter(|on| *on).or(parts.services.then_some(false)),
            headers: headers(settings, hosts.first(), report),
            hosts,
            path: mapping.prefix.clone(),
            members: parts.members,
            redirect: None,
            refuse: None,
            sticky,
            balancing: method
                .filter(|method| *method != api::Method::Latency)
                .map(|method| api::Balancing { method, ..api::Balancing::default() }),
            failover: Some(parts.failover).filter(|f| *f != api::Failover::default()),
            timeouts: Some(timeouts).filter(|t| *t != api::Timeouts::default()),
            limits: None,
            reverse: Some(reverse).filter(|r| *r != api::Reverse::default()),
            access: None,
            upstream_tls: None,
            tls: None,
        }
    }

    /// Rules for what Gibbon does not derive from the members of this site.
    fn reversals(&mut self, first: usize, site: &Site, report: &mut Report) {
        for (scope, settings) in &site.settings {
            for (id, path, url) in &settings.reversals {
                self.reversal(first, scope, *id, path, url, site, report);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a rule, and where it applies")]
    fn reversal(
        &mut self,
        first: usize,
        scope: &str,
        id: Id,
        path: &str,
        url: &str,
        site: &Site,
        report: &mut Report,
    ) {
        let made = &mut self.made[first..];
        if made.is_empty() {
            return;
        }
        let urls: Vec<String> = match balancer(url) {
            Some((name, rest)) => {
                let Some(pool) = site.pools.get(&name).filter(|p| !p.members.is_empty()) else {
                    let note = format!("balancer://{name} has no members");
                    return report.say(id, Verdict::Dropped, note);
                };
                let rest = if rest == "/" { "" } else { rest.as_str() };
                let member =
                    |m: &super::site::Member| m.url.trim_end_matches('/').to_owned() + rest;
                pool.members.iter().map(member).collect()
            }
            None => vec![url.to_owned()],
        };
        let bare = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
        let of_member = |url: &str| {
            made.iter().any(|made| {
                let spec = &made.balancer.spec;
                bare(&spec.path) == bare(path)
                    && spec
                        .members
                        .iter()
                        .filter_map(|m| m.url.as_deref())
                        .any(|m| bare(m) == bare(url))
            })
        };
        let rest: Vec<_> = urls.iter().filter(|url| !of_member(url)).collect();
        if rest.is_empty() {
            return report.say(id, Verdict::Converted, "derived from the members");
        }
        report.say(id, Verdict::Converted, "");
        for made in made.iter_mut().filter(|made| covers(scope, &made.balancer.spec.path)) {
            let reverse = made.balancer.spec.reverse.get_or_insert_default();
            for url in &rest {
                let mapping = api::Mapping { from: (*url).clone(), to: path.to_owned() };
                if !reverse.locations.contains(&mapping) {
                    reverse.locations.push(mapping);
                }
            }
        }
    }

    /// A name that nothing else has.
    fn name(&mut self, called: &str, site: &Site) -> String {
        let host = site.names.first().map_or("site", |(_, name)| name.as_str());
        let whole = match called.trim_matches('/') {
            "" => host.to_owned(),
            path if called.starts_with('/') || self.several => format!("{host}-{path}"),
            name => name.to_owned(),
        };
        let plain: String = whole
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let mut parts: Vec<_> = plain.split('-').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            parts.push("balancer");
        }
        let mut base = parts.join("-");
        base.truncate(LONGEST_NAME - 4);
        let base = base.trim_matches('-').to_owned();
        let mut name = base.clone();
        for number in 2.. {
            if self.names.insert(name.clone()) {
                break;
            }
            name = format!("{base}-{number}");
        }
        name
    }
}

impl Site {
    fn settings_of(&self, prefix: &str) -> Settings {
        let mut all = Settings::default();
        for (_, settings) in self.settings.iter().filter(|(scope, _)| covers(scope, prefix)) {
            all.and(settings);
        }
        all
    }
}

/// The hosts of a site; none: any.
fn hosts(site: &Site, server: bool, report: &mut Report) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for (id, name) in &site.names {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        if bare.contains(['*', '?']) || bare.is_empty() {
            let note = "only wildcards such as *.site.com are served: name the hosts";
            report.say(*id, Verdict::Dropped, note);
        } else if !hosts.contains(name) {
            hosts.push(name.clone());
        }
        if server {
            let note = "Apache serves any host here, Gibbon this one";
            report.say(*id, Verdict::Approximated, note);
        }
    }
    hosts
}

/// What `!` leaves out of the paths of another Balancer.
fn refusal(mapping: &Mapping, hosts: Vec<String>) -> api::BalancerSpec {
    api::BalancerSpec {
        class_name: None,
        hosts,
        path: mapping.prefix.clone(),
        members: Vec::new(),
        redirect: None,
        refuse: Some(api::Refuse { status: 404 }),
        sticky: None,
        balancing: None,
        failover: None,
        timeouts: None,
        limits: None,
        preserve_host: None,
        reverse: None,
        headers: None,
        access: None,
        upstream_tls: None,
        tls: None,
    }
}

/// The manual's recipe replaces the application's cookie by Gibbon's own.
fn issued(id: Id, issue: &api::Issue, sticky: &mut Option<api::Sticky>, report: &mut Report) {
    let Some(sticky) = sticky.as_mut().filter(|s| s.cookie.as_deref() == Some(&issue.name)) else {
        let note = "no balancer here has this cookie as its stickysession";
        return report.say(id, Verdict::Dropped, note);
    };
    sticky.cookie = None;
    sticky.issue = Some(issue.clone());
    let note = "`sticky.issue`: the value is a hash of the route, so sessions begin anew";
    report.say(id, Verdict::Approximated, note);
}

fn seconds(settings: &Settings, report: &mut Report) -> Option<api::Duration> {
    let (id, value) = settings.proxy_timeout.as_ref().or(settings.timeout.as_ref())?;
    if let (Some(_), Some((id, _))) = (&settings.proxy_timeout, &settings.timeout) {
        report.say(*id, Verdict::Converted, "ProxyTimeout counts");
    }
    let time = time(value);
    match time {
        Some(_) => report.say(*id, Verdict::Converted, ""),
        None => report.say(*id, Verdict::Dropped, "its value is not understood"),
    }
    time
}

fn reverse(settings: &Settings, report: &mut Report) -> api::Reverse {
    let mut reverse = api::Reverse::default();
    let lists = [
        (&settings.cookie_domains, &mut reverse.cookie_domains, Verdict::Converted, ""),
        (
            &settings.cookie_paths,
            &mut reverse.cookie_paths,
            Verdict::Approximated,
            "what follows is kept, and Apache cuts it off",
        ),
    ];
    for (from, to, verdict, note) in lists {
        for (id, from, into) in from {
            report.say(*id, verdict, note);
            let mapping = api::Mapping { from: from.clone(), to: into.clone() };
            if !to.contains(&mapping) {
                to.push(mapping);
            }
        }
    }
    reverse
}

fn headers(
    settings: &Settings,
    host: Option<&String>,
    report: &mut Report,
) -> Option<api::Headers> {
    let mut request = edits(&settings.request, report);
    let mut response = edits(&settings.response, report);
    if let Some((id, via)) = &settings.via {
        let host = host.map_or("gibbon", String::as_str);
        let header = || api::Header { name: "Via".to_owned(), value: format!("1.1 {host}") };
        match via.as_str() {
            "on" | "full" => {
                request.add.push(header());
                response.add.push(header());
                report.say(
                    *id,
                    Verdict::Approximated,
                    "`Via` is written as for HTTP/1.1, without a version",
                );
            }
            "block" => {
                request.remove.push("Via".to_owned());
                report.say(*id, Verdict::Converted, "");
            }
            _ => report.say(*id, Verdict::Converted, ""),
        }
    }
    match settings.add_headers {
        Some((id, false)) => {
            let names =
                ["For", "Host", "Server", "Proto"].map(|name| format!("X-Forwarded-{name}"));
            request.remove.extend(names);
            let note = "X-Forwarded-* are removed, and Apache lets the client's own pass";
            report.say(id, Verdict::Approximated, note);
        }
        Some((id, true)) => report.say(id, Verdict::Converted, ""),
        None => {}
    }
    let some = |edit: api::HeaderEdit| Some(edit).filter(|e| *e != api::HeaderEdit::default());
    let headers = api::Headers { request: some(request), response: some(response) };
    Some(headers).filter(|headers| *headers != api::Headers::default())
}

fn edits(edits: &[(Id, Edit)], report: &mut Report) -> api::HeaderEdit {
    let mut all = api::HeaderEdit::default();
    for (id, edit) in edits {
        report.say(*id, Verdict::Converted, "");
        match edit {
            Edit::Set(name, value) => {
                all.set.retain(|header| !header.name.eq_ignore_ascii_case(name));
                all.set.push(api::Header { name: name.clone(), value: value.clone() });
            }
            Edit::Add(name, value) => {
                all.add.push(api::Header { name: name.clone(), value: value.clone() });
            }
            Edit::Remove(name) => all.remove.push(name.clone()),
        }
    }
    all
}
