//! Rules and addresses become a table: members, groups, matching order, conflicts.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::balance::{Cursor, Dealer};
use super::load::Load;
use super::path::HostPattern;
use super::reverse::{Origin, Reversal, Scheme, Site};
use super::sticky;
use super::tally::RuleTally;
use super::{
    Backend, Budget, Entry, Group, Host, Member, Route, Rule, RuleId, Table, Target,
};

/// The addresses of names, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By name in lower case and port; none or empty if the name does not resolve.
    pub names: HashMap<(Arc<str>, u16), Vec<SocketAddr>>,
}

impl Endpoints {
    fn addresses(&self, target: &Target) -> Vec<SocketAddr> {
        match &target.host {
            Host::Address(ip) => vec![SocketAddr::new(*ip, target.port)],
            Host::Name(name) => {
                let known = self.names.get(&(Arc::clone(name), target.port));
                known.cloned().unwrap_or_default()
            }
        }
    }
}

/// A rule does not serve one of its hosts and paths, because another rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that does not.
    pub rule: RuleId,
    /// The host as it was written; `*` for any.
    pub host: String,
    /// The path.
    pub path: String,
    /// The rule that serves them.
    pub winner: RuleId,
}

impl Table {
    /// Builds the table of these rules. What `previous` has learned is kept: the loads of the same
    /// backends, the cursors and counters of the same rules, and whole routes that did not change.
    #[must_use]
    pub fn build(
        rules: &[Arc<Rule>],
        endpoints: &Endpoints,
        previous: &Self,
        now: Instant,
    ) -> Self {
        let mut ordered: Vec<&Arc<Rule>> = rules.iter().collect();
        ordered.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
        let mut table = Self::default();
        for rule in ordered {
            let route = table.route_of(rule, endpoints, previous, now);
            table.claim(&route);
            table.routes.push(route);
        }
        table.routes.sort_by(|a, b| a.rule.id.cmp(&b.rule.id));
        table
    }

    /// The previous route where nothing changed, else a new one.
    fn route_of(
        &mut self,
        rule: &Arc<Rule>,
        endpoints: &Endpoints,
        previous: &Self,
        now: Instant,
    ) -> Arc<Route> {
        let addresses: Vec<_> = rule.entries.iter().map(|e| endpoints.addresses(&e.target)).collect();
        let before = previous.route(&rule.id);
        if let Some(before) = before.filter(|b| b.unchanged(rule, &addresses)) {
            for member in &before.members {
                let target = rule.entries[member.entry].target.clone();
                let backend = Backend { target, address: member.address };
                self.loads.entry(backend).or_insert_with(|| Arc::clone(&member.load));
            }
            return Arc::clone(before);
        }
        let ramps = before.is_some_and(|before| !before.members.is_empty());
        let mut load = |backend: Backend| {
            let kept = previous.loads.get(&backend).cloned();
            let load = || kept.unwrap_or_else(|| Arc::new(Load::new(now, ramps)));
            Arc::clone(self.loads.entry(backend).or_insert_with(load))
        };
        Arc::new(Route::new(rule, &addresses, before.map(AsRef::as_ref), &mut load))
    }

    /// Enters a route under its hosts, unless a rule that comes first has them with this path.
    fn claim(&mut self, route: &Arc<Route>) {
        for host in &route.rule.hosts {
            let paths = match host {
                HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
                HostPattern::Wildcard(suffix) => self.wildcards.entry(suffix.clone()).or_default(),
                HostPattern::Any => self.any.get_or_insert_default(),
            };
            let prefix = route.rule.prefix.as_str();
            if let Some(holder) = paths.routes.get(prefix) {
                // The same host written twice in one rule is no conflict.
                if holder.rule.id != route.rule.id {
                    self.verdicts.push(Verdict {
                        rule: route.rule.id.clone(),
                        host: host.to_string(),
                        path: prefix.to_owned(),
                        winner: holder.rule.id.clone(),
                    });
                }
                continue;
            }
            paths.deepest = paths.deepest.max(prefix.matches('/').count());
            paths.routes.insert(prefix.into(), Arc::clone(route));
        }
    }
}

/// The older object first; objects without a time after those with one; then by name.
fn precedence(rule: &Rule) -> (bool, i64, &RuleId) {
    (rule.created.is_none(), rule.created.unwrap_or_default(), &rule.id)
}

impl Route {
    fn new(
        rule: &Arc<Rule>,
        addresses: &[Vec<SocketAddr>],
        before: Option<&Self>,
        load: &mut dyn FnMut(Backend) -> Arc<Load>,
    ) -> Self {
        let mut members = Vec::new();
        let mut groups = Vec::new();
        for (share, entries) in shares(&rule.entries) {
            let from = members.len();
            let old = before.and_then(|b| b.groups.get(groups.len()));
            let cursor = old.map_or_else(Arc::default, |group| Arc::clone(&group.cursor));
            for entry in entries {
                for address in &addresses[entry] {
                    let target = rule.entries[entry].target.clone();
                    let load = load(Backend { target, address: *address });
                    let own = before.and_then(|b| b.cursor_of(&load));
                    let own = own.unwrap_or_else(|| Arc::new(Cursor::joining(&cursor)));
                    members.push(member(rule, entry, groups.len(), *address, load, own));
                }
            }
            let sums = running_sums(&members[from..]);
            groups.push(Group { range: from..members.len(), share, cursor, sums });
        }
        let by_route = index(&members, |m| m.route.clone());
        let by_token = index(&members, |m| m.token.clone());
        let unresolved = (0..addresses.len()).filter(|entry| addresses[*entry].is_empty());
        Self {
            rule: Arc::clone(rule),
            groups,
            unresolved: unresolved.collect(),
            reversal: reversal(rule),
            dealer: before.map_or_else(Arc::<Dealer>::default, |b| Arc::clone(&b.dealer)),
            tally: before.map_or_else(Arc::<RuleTally>::default, |b| Arc::clone(&b.tally)),
            budget: before.map_or_else(Arc::<Budget>::default, |b| Arc::clone(&b.budget)),
            by_route,
            by_token,
            members,
        }
    }

    fn unchanged(&self, rule: &Arc<Rule>, addresses: &[Vec<SocketAddr>]) -> bool {
        let wanted = addresses
            .iter()
            .enumerate()
            .flat_map(|(entry, list)| list.iter().map(move |address| (entry, *address)));
        Arc::ptr_eq(&self.rule, rule) && self.members.iter().map(|m| (m.entry, m.address)).eq(wanted)
    }

    fn cursor_of(&self, load: &Arc<Load>) -> Option<Arc<Cursor>> {
        let member = self.members.iter().find(|m| Arc::ptr_eq(&m.load, load))?;
        Some(Arc::clone(&member.cursor))
    }
}

/// Without shares all entries are one group; with shares each is one of its own.
fn shares(entries: &[Entry]) -> Vec<(f64, Range<usize>)> {
    if entries.iter().all(|entry| entry.share.is_none()) {
        return vec![(1.0, 0..entries.len())];
    }
    let own = |(at, entry): (usize, &Entry)| (entry.share.unwrap_or_default(), at..at + 1);
    entries.iter().enumerate().map(own).collect()
}

fn member(
    rule: &Rule,
    entry: usize,
    group: usize,
    address: SocketAddr,
    load: Arc<Load>,
    cursor: Arc<Cursor>,
) -> Member {
    let of = &rule.entries[entry];
    let issues = rule.sticky.as_ref().is_some_and(|sticky| sticky.issue.is_some());
    let token = issues.then(|| {
        let derived = || format!("{}/{address}", of.name);
        let named = of.route.as_deref().map_or_else(derived, str::to_owned);
        sticky::token(&rule.id.namespace, &rule.id.name, &named).into_boxed_str()
    });
    Member {
        name: Arc::clone(&of.name),
        entry,
        group,
        address,
        tls: of.target.tls.clone(),
        route: of.route.clone(),
        token,
        weight: of.weight,
        state: of.state,
        site: site(of),
        load,
        cursor,
    }
}

/// A member's base URL as it would write it itself.
fn site(entry: &Entry) -> Site {
    let scheme = if entry.target.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let host = match &entry.target.host {
        Host::Name(name) => name.to_string(),
        Host::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Address(ip) => ip.to_string(),
    };
    let origin = Origin { scheme, host, port: entry.target.port };
    Site { origin, path: entry.path.to_string() }
}

fn reversal(rule: &Rule) -> Option<Reversal> {
    let rules = rule.reverse.clone()?;
    Some(Reversal::new(&rule.prefix, rule.entries.iter().map(site).collect(), rules))
}

fn running_sums(members: &[Member]) -> Vec<f64> {
    let sum = |sum: &mut f64, member: &Member| {
        *sum += member.weight;
        Some(*sum)
    };
    members.iter().scan(0.0, sum).collect()
}

fn index<K: Eq + std::hash::Hash>(
    members: &[Member],
    key: impl Fn(&Member) -> Option<K>,
) -> HashMap<K, Vec<usize>> {
    let mut map: HashMap<K, Vec<usize>> = HashMap::new();
    for (at, member) in members.iter().enumerate() {
        if let Some(key) = key(member) {
            map.entry(key).or_default().push(at);
        }
    }
    map
}
