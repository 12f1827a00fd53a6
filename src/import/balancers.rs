//! Sites → Balancers: which path goes where, what of the rest applies to it, what it is called.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Options;
use super::access::Guard;
use super::members::{Parts, time};
use super::redirect::Redirect;
use super::report::{Id, Report, Verdict};
use super::secure::{Secure, Verify};
use super::site::{Edit, Mapping, Settings, Site, To, balancer, covers, member_url};
use super::upstream::Secret;
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
    let Some((server, hosts)) = sites.split_first() else { return Vec::new() };
    let mut whole: Vec<Site> = hosts.iter().map(|site| server.with(site)).collect();
    if hosts.is_empty() {
        whole.push(server.clone());
    }
    let mut maker = Maker {
        options,
        latency: sites.iter().any(Site::is_ape),
        several: whole.len() > 1,
        by_tls: by_tls(&whole),
        in_plain: in_plain(&whole),
        secrets: BTreeMap::new(),
        asked: BTreeMap::new(),
        names: BTreeSet::new(),
        served: BTreeMap::new(),
        made: Vec::new(),
    };
    // Gibbon does not choose by port: what is served by TLS goes before the same without.
    whole.sort_by_key(|site| !site.secure.is_on());
    for site in &whole {
        maker.site(site, hosts.is_empty(), report);
    }
    for (id, _) in server.names.iter().filter(|_| !hosts.is_empty()) {
        report.say(*id, Verdict::Converted, "requests are for the virtual hosts");
    }
    maker.made
}

/// The hosts for which something is proxied by TLS.
fn by_tls(sites: &[Site]) -> BTreeSet<String> {
    let serving =
        sites.iter().filter(|site| site.secure.is_on() && site.proxied().next().is_some());
    serving.flat_map(|site| &site.names).map(|(_, name)| name.clone()).collect()
}

/// What is proxied without TLS, by host.
fn in_plain(sites: &[Site]) -> BTreeMap<String, Vec<Mapping>> {
    let mut all: BTreeMap<String, Vec<Mapping>> = BTreeMap::new();
    // What sends everything to TLS comes before what is proxied.
    let plain = |site: &&Site| !site.secure.is_on() && site.secure.redirect.is_none();
    for site in sites.iter().filter(plain) {
        for (_, name) in &site.names {
            let is_for = |m: &&Mapping| m.hosts.as_ref().is_none_or(|hosts| hosts.contains(name));
            let mappings = site.proxied().filter(is_for);
            let mappings = mappings.map(|mapping| Mapping { hosts: None, ..mapping.clone() });
            all.entry(name.clone()).or_default().extend(mappings);
        }
    }
    all
}

/// What a Secret is for; its name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// The certificate of a host.
    Host,
    /// The authorities of clients.
    Clients,
    /// The authorities of members.
    Members,
    /// Gibbon's own certificate, for members.
    Own,
}

struct Maker<'o> {
    options: &'o Options,
    /// Ape's default, not Apache's.
    latency: bool,
    /// There are several sites, so that names need theirs.
    several: bool,
    /// Hosts for which something is proxied by TLS.
    by_tls: BTreeSet<String>,
    /// What is proxied without TLS, by host.
    in_plain: BTreeMap<String, Vec<Mapping>>,
    /// The Secrets that are to be made: what for, of which file, and their names.
    secrets: BTreeMap<(Use, String), String>,
    /// Hosts whose clients are asked for certificates, with the Secret of the authorities.
    asked: BTreeMap<String, String>,
    names: BTreeSet<String>,
    /// Hosts and paths that are served already, and where they lead.
    served: BTreeMap<(String, String, bool), To>,
    made: Vec<Made>,
}

impl Site {
    fn is_ape(&self) -> bool {
        let has = |params: &[super::site::Param]| params.iter().any(|p| p.key == "routeregex");
        let mappings = self.rewritten.iter().chain(&self.mappings).chain(&self.located);
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
        // Rules are not inherited.
        whole.rewritten.clone_from(&site.rewritten);
        whole.checks.extend(&site.checks);
        whole.answers.extend(site.answers.iter().cloned());
        if !site.guard.is_empty() {
            whole.guard.clone_from(&site.guard);
        }
        whole.secure = site.secure.or(&self.secure);
        whole.upstream = site.upstream.or(&self.upstream);
        whole.https = site.https;
        whole.authority.clone_from(&site.authority);
        whole.canonical = site.canonical.or(self.canonical);
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
        if !more.guard.is_empty() {
            self.guard.clone_from(&more.guard);
        }
        self.verify = more.verify.or(self.verify);
        self.errors.and(&more.errors);
        for (own, other) in [
            (&mut self.body, &more.body),
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

    /// Whether the paths that it applies to need a Balancer of their own.
    const fn is_apart(&self) -> bool {
        !(self.guard.is_empty()
            && self.verify.is_none()
            && self.errors.is_empty()
            && self.body.is_none()
            && self.preserve_host.is_none()
            && self.proxy_timeout.is_none()
            && self.timeout.is_none()
            && self.via.is_none()
            && self.add_headers.is_none()
            && self.issue.is_none()
            && self.request.is_empty()
            && self.response.is_empty()
            && self.cookie_domains.is_empty()
            && self.cookie_paths.is_empty())
    }
}

/// Whether two paths differ by a slash at the end at most.
fn alike(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

impl Maker<'_> {
    fn site(&mut self, site: &Site, server: bool, report: &mut Report) {
        let hosts = hosts(site, server, report);
        self.secrets(site, report);
        let proxied = site.rewritten.iter().chain(&site.located).chain(&site.mappings);
        let all: Vec<&Mapping> = proxied.chain(&site.answers).collect();
        let mut kept: Vec<&Mapping> = Vec::new();
        for mapping in &all {
            // What is not proxied is answered all the same.
            let is_before = |earlier: &&&Mapping| {
                earlier.covers(mapping) && !(earlier.to == To::Nowhere && mapping.is_answer())
            };
            match kept.iter().find(is_before) {
                Some(earlier) => {
                    let note = format!("never reached: {} comes first", earlier.prefix);
                    report.say(mapping.id, Verdict::Converted, note);
                }
                None => kept.push(mapping),
            }
        }
        let first = self.made.len();
        let parts = site.parts(&kept);
        for (at, mapping) in kept.iter().enumerate() {
            let Some(mapping) = mapping.after(&kept[..at], &hosts) else {
                report.say(mapping.id, Verdict::Converted, "never reached: others come first");
                continue;
            };
            let mapping = &mapping;
            let settings = site.settings_of(&mapping.prefix);
            if mapping.to != To::Nowhere {
                self.mapping(mapping, site, &hosts, &settings, report);
                continue;
            }
            let answer = site.answers.iter().find_map(|answer| answer.below(&mapping.prefix));
            let answer = answer.map(|answer| Mapping { exact: mapping.exact, ..answer });
            let is_left_out = kept[at + 1..].iter().any(|m| m.covers(mapping));
            if let Some(answer) = answer {
                report.say(mapping.id, Verdict::Converted, "answered by a redirect");
                self.mapping(&answer, site, &hosts, &settings, report);
            } else if is_left_out {
                self.mapping(mapping, site, &hosts, &settings, report);
            } else {
                report.say(mapping.id, Verdict::Converted, "nothing else leads there");
            }
        }
        for (at, part) in &parts {
            if let Some(part) = part.after(&kept[..*at], &hosts) {
                let settings = site.settings_of(&part.prefix);
                self.mapping(&part, site, &hosts, &settings, report);
            }
        }
        self.secured(first, site, &hosts, report);
        for (id, _) in &site.names {
            report.say(*id, Verdict::Converted, "");
        }
        self.reversals(first, site, report);
        site.close(report);
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
        let answered = mapping.is_answer() || mapping.to == To::Nowhere;
        let hosts = mapping.hosts_of(hosts);
        let hosts = &self.without_tls(mapping, site, &hosts, report)[..];
        if hosts.is_empty() && !site.names.is_empty() {
            return;
        }
        let (parts, called) = match &mapping.to {
            To::Nowhere => (Parts::default(), format!("not-{}", mapping.prefix)),
            To::Elsewhere(_) | To::Refused(_) => (Parts::default(), mapping.prefix.clone()),
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
        if parts.members.is_empty() && !answered {
            return report.say(mapping.id, Verdict::Dropped, "no member of it can be used");
        }
        let (twice, same) = self.claim(hosts, mapping);
        let hosts: Vec<_> = hosts.iter().filter(|host| !twice.contains(host)).cloned().collect();
        if !twice.is_empty() {
            let all = hosts.is_empty();
            let twice = if twice[0].is_empty() { "any host".to_owned() } else { twice.join(", ") };
            let (verdict, note) = match (same, all) {
                (true, _) => (Verdict::Converted, format!("{twice}: the same is served already")),
                (false, all) => (
                    if all { Verdict::Dropped } else { Verdict::Approximated },
                    format!(
                        "{twice} and this path are served by another virtual host: Gibbon does not \
                         choose by port"
                    ),
                ),
            };
            report.say(mapping.id, verdict, note);
            if all {
                return;
            }
        }
        let name = self.name(&called, site);
        let guards = [&settings.guard, site.pool_guard(&mapping.to), &site.guard];
        let closed = site.closed(settings, report);
        let mut guards = guards.into_iter().filter(|guard| !guard.is_empty() && !answered);
        let guard = guards.next();
        guards.for_each(|guard| guard.yield_to_another(report));
        let guard = closed.as_ref().or(guard);
        for id in &settings.ids {
            report.say(*id, Verdict::Converted, "");
        }
        let mut spec = match &mapping.to {
            To::Nowhere => refusal(404),
            To::Refused(status) => refusal(*status),
            To::Elsewhere(redirect) => {
                api::BalancerSpec { redirect: Some(redirect.clone().spec()), ..empty() }
            }
            To::Url(_) | To::Pool(..) => self.spec(&hosts, parts, site, settings, report),
        };
        spec.access = guard.and_then(|guard| guard.access(report));
        spec.error_pages = settings.errors.pages(report);
        spec.tls = self.tls(mapping, site, settings);
        (spec.hosts, spec.path) = (hosts, mapping.prefix.clone());
        if mapping.exact {
            spec.path_type = api::PathType::Exact;
        }
        let balancer = api::Balancer {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.options.services.clone(),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        };
        match faults(&balancer) {
            None => {
                report.say(mapping.id, Verdict::Converted, format!("Balancer {name}"));
                self.made.push(Made { id: mapping.id, balancer });
            }
            Some(faults) => report.say(mapping.id, Verdict::Dropped, faults),
        }
    }

    /// Hosts that have this path already, and whether it leads to the same place there.
    fn claim(&mut self, hosts: &[String], mapping: &Mapping) -> (Vec<String>, bool) {
        let any = [String::new()];
        let hosts = if hosts.is_empty() { &any[..] } else { hosts };
        let (mut twice, mut same) = (Vec::new(), true);
        for host in hosts {
            match self.served.entry((host.clone(), mapping.prefix.clone(), mapping.exact)) {
                Entry::Occupied(taken) => {
                    same &= *taken.get() == mapping.to;
                    twice.push(host.clone());
                }
                Entry::Vacant(free) => drop(free.insert(mapping.to.clone())),
            }
        }
        (twice, same)
    }

    /// The hosts of a mapping, but for those that it only sends to TLS, which `spec.tls` does.
    fn without_tls(
        &self,
        mapping: &Mapping,
        site: &Site,
        hosts: &[String],
        report: &mut Report,
    ) -> Vec<String> {
        let sent = match &mapping.to {
            To::Elsewhere(redirect) if !site.secure.is_on() => redirect.https(&mapping.prefix),
            _ => None,
        };
        let whole = mapping.prefix == "/" && !mapping.exact;
        let Some(sent) = sent.filter(|_| whole) else { return hosts.to_vec() };
        let (by_tls, rest): (Vec<_>, Vec<_>) =
            hosts.iter().cloned().partition(|host| self.by_tls.contains(host));
        if let [first, ..] = by_tls.as_slice() {
            let verdict = if by_tls.len() == 1 && first == sent {
                Verdict::Converted
            } else {
                Verdict::Approximated
            };
            let note = format!("`spec.tls` sends {} to itself by https", by_tls.join(", "));
            report.say(mapping.id, verdict, note);
        }
        rest
    }

    /// The Secret that is to be made of a file.
    fn secret(&mut self, kind: Use, file: &str, site: &Site) -> String {
        let key = (kind, file.to_owned());
        if let Some(name) = self.secrets.get(&key) {
            return name.clone();
        }
        let host = site.names.first().map_or("site", |(_, name)| name.as_str());
        let mut plain = host.replace("*.", "wildcard.").replace(|c: char| !is_of_name(c), "-");
        plain.push_str(match kind {
            Use::Host => "",
            Use::Clients => "-clients",
            Use::Members => "-members",
            Use::Own => "-own",
        });
        let mut name = plain.clone();
        for number in 2.. {
            if !self.secrets.values().any(|taken| *taken == name) {
                break;
            }
            name = format!("{plain}-{number}");
        }
        self.secrets.insert(key, name.clone());
        name
    }

    /// The Secrets of a site for TLS with clients.
    fn secrets(&mut self, site: &Site, report: &mut Report) {
        let certificate = site.secure.certificate();
        let certificate = certificate.map(|file| self.secret(Use::Host, file, site));
        let clients = site.authorities().map(|file| self.secret(Use::Clients, file, site));
        site.secure.say(certificate.as_deref(), clients.as_deref(), report);
        for (_, name) in site.names.iter().filter(|_| clients.is_some()) {
            self.asked.entry(name.clone()).or_insert_with(|| clients.clone().unwrap_or_default());
        }
    }

    /// What a site asks of TLS with clients, for what has these settings.
    fn tls(&mut self, mapping: &Mapping, site: &Site, settings: &Settings) -> Option<api::Tls> {
        let mappings = site.names.iter().filter_map(|(_, name)| self.in_plain.get(name));
        let plain = mappings.flatten().any(|plain| plain.covers(mapping));
        let redirect = !plain || site.secure.redirect.is_some();
        let certificate = site.secure.certificate();
        let certificate = certificate.map(|file| self.secret(Use::Host, file, site));
        // What is open without TLS stays so, where others of the host ask for certificates.
        let clients = site.names.iter().find_map(|(_, name)| self.asked.get(name)).cloned();
        let (asks, optional) = (site.secure.is_on(), !site.asks(settings));
        (asks || site.secure.redirect.is_some() || clients.is_some()).then_some(api::Tls {
            secret_name: certificate,
            client_certificate: clients
                .as_ref()
                .filter(|_| optional)
                .map(|_| api::ClientCertificate::Optional),
            client_ca_secret: clients,
            redirect: redirect && (asks || site.secure.redirect.is_some()),
            hsts: None,
        })
    }

    /// A site that sends everything to TLS, whatever the host.
    fn secured(&mut self, first: usize, site: &Site, hosts: &[String], report: &mut Report) {
        let Some(id) = site.secure.redirect else { return };
        report.say(id, Verdict::Converted, "`spec.tls` sends requests to https");
        if self.made.len() > first {
            return;
        }
        let rest: Vec<_> = hosts.iter().filter(|host| !self.by_tls.contains(*host)).collect();
        for host in rest {
            if host.starts_with('*') {
                let note = format!("{host}: there is no Balancer of it that could have `spec.tls`");
                report.say(id, Verdict::Dropped, note);
                continue;
            }
            let to = Redirect { to: format!("https://{host}/"), status: 301, keep_path: true };
            let to = To::Elsewhere(to);
            let mapping = Mapping {
                id,
                prefix: "/".to_owned(),
                exact: false,
                hosts: None,
                to,
                params: Vec::new(),
            };
            let plain = Site { secure: Secure::default(), ..site.clone() };
            let hosts = std::slice::from_ref(host);
            self.mapping(&mapping, &plain, hosts, &Settings::default(), report);
        }
    }

    fn spec(
        &mut self,
        hosts: &[String],
        parts: Parts,
        site: &Site,
        settings: &Settings,
        report: &mut Report,
    ) -> api::BalancerSpec {
        let preserve = settings.preserve_host.map(|(id, on)| {
            report.say(id, Verdict::Converted, "");
            on
        });
        let upstream_tls = self.upstream(hosts, &parts, site, preserve == Some(true), report);
        let mut sticky = parts.sticky;
        if let Some((id, issue)) = &settings.issue {
            issued(*id, issue, &mut sticky, report);
        }
        let method = parts.method.or_else(|| {
            (!self.latency && parts.members.len() > 1).then_some(api::Method::RoundRobin)
        });
        let mut balancing = api::Balancing::default();
        balancing.method = method.unwrap_or(balancing.method);
        balancing.queue_for = parts.queue_for.unwrap_or(balancing.queue_for);
        let mut timeouts = api::Timeouts::default();
        timeouts.connect = parts.connect.unwrap_or(timeouts.connect);
        timeouts.response = parts.response.or_else(|| seconds(settings, report));
        let reverse = reverse(site, settings, report);
        api::BalancerSpec {
            upstream_tls,
            preserve_host: preserve.filter(|on| *on).or(parts.services.then_some(false)),
            headers: headers(settings, hosts.first(), report),
            members: parts.members,
            sticky,
            balancing: Some(balancing).filter(|b| *b != api::Balancing::default()),
            failover: Some(parts.failover).filter(|f| *f != api::Failover::default()),
            health_check: parts.health_check,
            timeouts: Some(timeouts).filter(|t| *t != api::Timeouts::default()),
            limits: limits(settings, report),
            reverse: Some(reverse).filter(|r| *r != api::Reverse::default()),
            ..empty()
        }
    }

    /// TLS with members.
    fn upstream(
        &mut self,
        hosts: &[String],
        parts: &Parts,
        site: &Site,
        preserves_host: bool,
        report: &mut Report,
    ) -> Option<api::UpstreamTls> {
        if parts.by_tls.is_empty() {
            return None;
        }
        let upstream = parts.upstream.or(&site.upstream);
        let mut tls = upstream.spec(
            &parts.by_tls,
            &mut |kind, file| {
                let kind = if kind == Secret::Authorities { Use::Members } else { Use::Own };
                self.secret(kind, file, site)
            },
            report,
        );
        // Apache asks members for the name that the client has asked for, then.
        if preserves_host {
            match hosts {
                [host] if !host.starts_with('*') => {
                    tls.get_or_insert_default().server_name = Some(host.clone());
                }
                _ => {
                    let note = "members are asked by TLS for their own name, whatever the Host: \
                                `upstreamTLS.serverName`";
                    for id in &parts.by_tls {
                        report.say(*id, Verdict::Approximated, note);
                    }
                }
            }
        }
        tls
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
                // Those that are no members of the Balancer say nothing either.
                let urls = pool.members.iter().filter_map(|m| member_url(&m.url).ok());
                urls.map(|(url, _)| url.trim_end_matches('/').to_owned() + rest).collect()
            }
            None => vec![member_url(url).map_or(url.to_owned(), |(url, _)| url)],
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
        for url in rest {
            let mapping = api::Mapping { from: url.clone(), to: path.to_owned() };
            let applies = |made: &&mut Made| {
                let spec = &made.balancer.spec;
                !spec.members.is_empty() && (covers(scope, &spec.path) || alike(scope, &spec.path))
            };
            for made in made.iter_mut().filter(applies) {
                let before = made.balancer.spec.reverse.clone();
                let reverse = made.balancer.spec.reverse.get_or_insert_default();
                if !reverse.locations.contains(&mapping) {
                    reverse.locations.push(mapping.clone());
                }
                if let Some(faults) = faults(&made.balancer) {
                    report.say(id, Verdict::Dropped, faults);
                    made.balancer.spec.reverse = before;
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

impl Mapping {
    /// The same without the hosts for which others come first; none if that is all of them.
    fn after(&self, earlier: &[&Self], hosts: &[String]) -> Option<Self> {
        let mut left = self.hosts_of(hosts);
        let before = left.len();
        for earlier in earlier.iter().filter(|earlier| earlier.covers_paths(self)) {
            let own = earlier.hosts.as_deref().unwrap_or_default();
            if !(earlier.to == To::Nowhere && self.is_answer()) {
                left.retain(|host| !own.contains(host));
            }
        }
        match (left.len(), before) {
            (0, 1..) => None,
            (now, _) if now == before => Some(self.clone()),
            _ => Some(Self { hosts: Some(left), ..self.clone() }),
        }
    }

    /// Those of a site's hosts for which it is; none: any.
    fn hosts_of(&self, hosts: &[String]) -> Vec<String> {
        match &self.hosts {
            None => hosts.to_vec(),
            Some(own) if hosts.is_empty() => own.clone(),
            Some(own) => hosts.iter().filter(|host| own.contains(host)).cloned().collect(),
        }
    }
}

impl Site {
    /// What goes to members.
    fn proxied(&self) -> impl Iterator<Item = &Mapping> {
        let mappings = self.rewritten.iter().chain(&self.located).chain(&self.mappings);
        mappings.filter(|mapping| matches!(mapping.to, To::Url(_) | To::Pool(..)))
    }

    /// The file with the authorities of clients, if any client is asked for a certificate.
    fn authorities(&self) -> Option<&str> {
        let settings = self.settings.iter().filter_map(|(_, settings)| settings.verify);
        let asks = self.secure.verify.into_iter().chain(settings).any(|(_, v)| v != Verify::Never);
        self.secure.authorities().filter(|_| asks)
    }

    /// Says of TLS with members that it makes no difference, where it has made none.
    fn close(&self, report: &mut Report) {
        let pools = self.pools.values().map(|pool| &pool.upstream);
        let workers = self.workers.iter().map(|(_, worker)| &worker.upstream);
        for upstream in pools.chain(workers).chain([&self.upstream]) {
            upstream.close(report);
        }
    }

    /// Whether clients need a certificate for what has these settings.
    fn asks(&self, settings: &Settings) -> bool {
        let verify = settings.verify.or(self.secure.verify);
        self.secure.is_on() && verify.is_some_and(|(_, verify)| verify == Verify::Always)
    }

    /// Says what asking clients becomes; who lets nobody in where there are no authorities.
    fn closed(&self, settings: &Settings, report: &mut Report) -> Option<Guard> {
        let (id, verify) = settings.verify.or(self.secure.verify)?;
        verify.say(id, settings.verify.is_some(), &self.secure, report);
        let unknown = self.asks(settings) && self.secure.authorities().is_none();
        unknown.then(|| Guard::closed(id))
    }

    /// What applies to a path; a slash at its end makes no difference.
    fn settings_of(&self, prefix: &str) -> Settings {
        let mut all = Settings::default();
        let applies = |scope: &str| covers(scope, prefix) || alike(scope, prefix);
        for (_, settings) in self.settings.iter().filter(|(scope, _)| applies(scope)) {
            all.and(settings);
        }
        all
    }

    /// The locations below what is proxied that need Balancers of their own, each with the place of
    /// the mapping that it is a part of.
    fn parts(&self, kept: &[&Mapping]) -> Vec<(usize, Mapping)> {
        let mut parts: Vec<(usize, Mapping)> = Vec::new();
        for (scope, _) in self.settings.iter().filter(|(_, settings)| settings.is_apart()) {
            for (at, mapping) in kept.iter().enumerate() {
                let is_there =
                    |m: &Mapping| !m.exact && alike(&m.prefix, scope) && m.hosts == mapping.hosts;
                let is_new = !kept.iter().any(|kept| is_there(kept))
                    && !parts.iter().any(|(_, part)| is_there(part));
                if mapping.exact || !covers(&mapping.prefix, scope) {
                    continue;
                }
                if is_new && mapping.to != To::Nowhere {
                    parts.extend(mapping.below(scope).map(|part| (at, part)));
                }
                // What is for some hosts leaves the others to the next one.
                if mapping.hosts.is_none() {
                    break;
                }
            }
        }
        parts
    }

    fn pool_guard(&self, to: &To) -> &Guard {
        match to {
            To::Pool(name, _) => self.pools.get(name).map_or(&self.guard, |pool| &pool.guard),
            _ => &self.guard,
        }
    }
}

/// What `gibbon check` would say of a Balancer.
fn faults(balancer: &api::Balancer) -> Option<String> {
    let everything = Policy {
        any_host: Namespaces::of(&["*".to_owned()]),
        url_members: Namespaces::of(&["*".to_owned()]),
        share_hosts: true,
    };
    let problems = rule(balancer, Place::Cluster(&everything)).err()?;
    Some(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
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

/// A Balancer that does nothing yet.
const fn empty() -> api::BalancerSpec {
    api::BalancerSpec {
        class_name: None,
        hosts: Vec::new(),
        path: String::new(),
        path_type: api::PathType::Prefix,
        members: Vec::new(),
        redirect: None,
        refuse: None,
        sticky: None,
        balancing: None,
        failover: None,
        health_check: None,
        timeouts: None,
        limits: None,
        preserve_host: None,
        reverse: None,
        headers: None,
        error_pages: Vec::new(),
        access: None,
        upstream_tls: None,
        tls: None,
    }
}

fn refusal(status: u16) -> api::BalancerSpec {
    api::BalancerSpec { refuse: Some(api::Refuse { status }), ..empty() }
}

const fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-')
}

fn limits(settings: &Settings, report: &mut Report) -> Option<api::Limits> {
    let (id, text) = settings.body.as_ref()?;
    let Ok(bytes) = text.parse() else {
        report.say(*id, Verdict::Dropped, "its value is not understood");
        return None;
    };
    report.say(*id, Verdict::Converted, "");
    (bytes > 0).then_some(api::Limits { request_body: Some(api::Bytes::new(bytes)) })
}

/// The manual's recipe replaces the application's cookie by Gibbon's own.
fn issued(id: Id, issue: &api::Issue, sticky: &mut Option<api::Sticky>, report: &mut Report) {
    let own = sticky.as_mut().filter(|s| s.cookie.as_deref() == Some(&issue.name));
    let Some(sticky) = own else { return };
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

fn reverse(site: &Site, settings: &Settings, report: &mut Report) -> api::Reverse {
    let scheme = site.https.then_some(api::Scheme::Https);
    let mut reverse = api::Reverse { scheme, ..api::Reverse::default() };
    if let Some((id, on)) = site.canonical {
        report.say(id, Verdict::Converted, if on { "`spec.reverse.host`" } else { "" });
        reverse.host = site.authority.clone().filter(|_| on);
    }
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
