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
use super::tally::{MemberTally, RuleTally};
use super::{Backend, Budget, Entry, Group, Host, Member, Route, Rule, RuleId, Table, Target};

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
        let mut table = Self { built: true, ..Self::default() };
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
        let addresses: Vec<_> =
            rule.entries.iter().map(|e| endpoints.addresses(&e.target)).collect();
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
                    let own = before.and_then(|b| b.kept(&load, &rule.entries[entry]));
                    let own = own.unwrap_or_else(|| {
                        (Arc::new(Cursor::joining(&cursor)), Arc::<MemberTally>::default())
                    });
                    members.push(member(rule, entry, groups.len(), *address, load, own));
                }
            }
            let sums = running_sums(&members[from..]);
            groups.push(Group { range: from..members.len(), share, cursor, sums });
        }
        let named = index(&members, |m| m.route.clone());
        let issued = index(&members, |m| m.token.clone());
        let unresolved = (0..addresses.len()).filter(|entry| addresses[*entry].is_empty());
        Self {
            rule: Arc::clone(rule),
            groups,
            unresolved: unresolved.collect(),
            reversal: reversal(rule),
            dealer: before.map_or_else(Arc::<Dealer>::default, |b| Arc::clone(&b.dealer)),
            tally: before.map_or_else(Arc::<RuleTally>::default, |b| Arc::clone(&b.tally)),
            budget: before.map_or_else(Arc::<Budget>::default, |b| Arc::clone(&b.budget)),
            named,
            issued,
            members,
        }
    }

    fn unchanged(&self, rule: &Arc<Rule>, addresses: &[Vec<SocketAddr>]) -> bool {
        let wanted = addresses
            .iter()
            .enumerate()
            .flat_map(|(entry, list)| list.iter().map(move |address| (entry, *address)));
        Arc::ptr_eq(&self.rule, rule)
            && self.members.iter().map(|m| (m.entry, m.address)).eq(wanted)
    }

    /// What this rule knows of an entry's backend besides its load; two entries may share one.
    fn kept(&self, load: &Arc<Load>, entry: &Entry) -> Option<Kept> {
        let same = |m: &&Member| {
            Arc::ptr_eq(&m.load, load) && m.name == entry.name && m.site.path == *entry.path
        };
        let member = self.members.iter().find(same)?;
        Some((Arc::clone(&member.cursor), Arc::clone(&member.tally)))
    }
}

/// What a rule keeps of a member when its table changes.
type Kept = (Arc<Cursor>, Arc<MemberTally>);

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
    (cursor, tally): Kept,
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
        tally,
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{endpoints, entry, rule, weighted};
    use super::super::path::RequestPath;
    use super::super::{Found, State};
    use super::*;

    fn table(rules: Vec<Rule>) -> Table {
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        Table::build(&rules, &Endpoints::default(), &Table::default(), Instant::now())
    }

    fn hosts(names: &[&str]) -> Vec<HostPattern> {
        names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
    }

    fn found(table: &Table, host: &str, path: &str) -> String {
        match table.find(host, &RequestPath::resolve(path).unwrap()) {
            Found::Route(route) => route.rule.id.name.to_string(),
            Found::UnknownHost => "unknown host".into(),
            Found::UnknownPath => "unknown path".into(),
            Found::Undecided => "undecided".into(),
        }
    }

    #[test]
    fn the_most_specific_host_and_the_longest_prefix_win() {
        let table = table(vec![
            rule("root", "/"),
            rule("static", "/static/"),
            rule("css", "/static/css"),
            Rule { hosts: hosts(&["*.site.com"]), ..rule("wild", "/") },
            Rule { hosts: hosts(&["*.shop.site.com"]), ..rule("shop", "/") },
        ]);
        for (host, path, name) in [
            ("www.site.com", "/", "root"),
            ("www.site.com", "/static", "root"),
            ("www.site.com", "/static/", "static"),
            ("www.site.com", "/static/css", "css"),
            ("www.site.com", "/static/css/a", "css"),
            ("www.site.com", "/static/cssx", "static"),
            ("www.site.com", "/%73tatic/x", "static"),
            ("www.site.com", "/static/../secret", "root"),
            ("a.site.com", "/", "wild"),
            ("a.b.site.com", "/", "wild"),
            ("a.shop.site.com", "/", "shop"),
            ("site.com", "/", "unknown host"),
            ("", "/", "unknown host"),
        ] {
            assert_eq!(found(&table, host, path), name, "{host}{path}");
        }
    }

    #[test]
    fn a_host_without_the_path_falls_through_to_the_next_best() {
        let table = table(vec![
            rule("static", "/static/"),
            Rule { hosts: hosts(&["*.site.com"]), ..rule("wild", "/app/") },
            Rule { hosts: vec![HostPattern::Any], ..rule("any", "/any/") },
        ]);
        assert_eq!(found(&table, "www.site.com", "/app/x"), "wild");
        assert_eq!(found(&table, "www.site.com", "/any/x"), "any");
        assert_eq!(found(&table, "www.site.com", "/x"), "unknown path");
        assert_eq!(found(&table, "other.org", "/any/"), "any");
        assert_eq!(found(&table, "other.org", "/static/"), "unknown path");
    }

    #[test]
    fn of_two_with_the_same_host_and_path_the_older_serves() {
        let named = |name, created| Rule { created, ..rule(name, "/") };
        let table = table(vec![named("b", Some(2)), named("c", Some(1)), named("a", None)]);
        assert_eq!(found(&table, "www.site.com", "/"), "c");
        let losers: Vec<_> = table.verdicts.iter().map(|v| v.rule.name.to_string()).collect();
        assert_eq!(losers, ["b", "a"]);
        assert!(table.verdicts.iter().all(|verdict| &*verdict.winner.name == "c"));
    }

    #[test]
    fn without_times_the_first_by_name_serves_and_the_other_keeps_its_other_hosts() {
        let both = Rule { hosts: hosts(&["www.site.com", "b.site.com"]), ..rule("b", "/") };
        let table = table(vec![both, rule("a", "/")]);
        assert_eq!(found(&table, "www.site.com", "/"), "a");
        assert_eq!(found(&table, "b.site.com", "/"), "b");
        assert_eq!(table.verdicts.len(), 1);
    }

    #[test]
    fn every_address_of_a_name_is_a_member_and_a_name_without_one_is_unresolved() {
        let named = |name: &str| {
            let target = Target { host: Host::Name(name.into()), port: 80, tls: None };
            Entry { target, ..entry(name, 1) }
        };
        let rule = Rule { entries: vec![named("one"), named("two")], ..rule("app", "/") };
        let endpoints = endpoints(&[("one", 80, &["127.0.0.1:80", "[::1]:80"])]);
        let table = Table::build(&[Arc::new(rule)], &endpoints, &Table::default(), Instant::now());
        let route = &table.routes[0];
        assert_eq!(route.members.len(), 2);
        assert_eq!(route.unresolved, [1]);
    }

    #[test]
    fn a_change_elsewhere_reuses_the_route_and_a_change_here_keeps_the_loads() {
        let now = Instant::now();
        let none = Endpoints::default();
        let app = Arc::new(weighted(&[1.0, 1.0]));
        let other = Arc::new(rule("other", "/other/"));
        let first = Table::build(&[Arc::clone(&app)], &none, &Table::default(), now);
        let second = Table::build(&[Arc::clone(&app), other], &none, &first, now);
        assert!(Arc::ptr_eq(&first.routes[0], second.route(&app.id).unwrap()));
        let mut changed = weighted(&[3.0, 1.0, 1.0]);
        changed.entries[1].state = State::Draining;
        let third = Table::build(&[Arc::new(changed)], &none, &second, now);
        let (old, new) = (&first.routes[0], &third.routes[0]);
        assert_eq!(new.members.len(), 3);
        for (old, new) in old.members.iter().zip(&new.members) {
            assert!(Arc::ptr_eq(&old.load, &new.load));
            assert!(Arc::ptr_eq(&old.cursor, &new.cursor));
        }
        assert!(Arc::ptr_eq(&old.tally, &new.tally));
    }

    #[test]
    fn two_entries_of_one_backend_are_counted_apart_through_a_change() {
        let now = Instant::now();
        let none = Endpoints::default();
        let twice = || Rule {
            entries: vec![entry("one", 1), Entry { name: "two".into(), ..entry("one", 1) }],
            ..rule("app", "/")
        };
        let first = Table::build(&[Arc::new(twice())], &none, &Table::default(), now);
        let second = Table::build(&[Arc::new(twice())], &none, &first, now);
        let [one, two] = &second.routes[0].members[..] else { panic!("two members") };
        assert!(Arc::ptr_eq(&one.load, &two.load) && !Arc::ptr_eq(&one.tally, &two.tally));
        assert!(Arc::ptr_eq(&two.tally, &first.routes[0].members[1].tally));
        assert!(Arc::ptr_eq(&two.cursor, &first.routes[0].members[1].cursor));
    }

    #[test]
    fn before_the_first_table_nothing_is_known_to_be_unknown() {
        assert_eq!(found(&Table::default(), "www.site.com", "/"), "undecided");
        assert_eq!(found(&table(Vec::new()), "www.site.com", "/"), "unknown host");
    }

    #[test]
    fn rules_to_one_backend_learn_once() {
        let rule = |name, path| Rule { entries: vec![entry("m", 1)], ..rule(name, path) };
        let table = table(vec![rule("a", "/a"), rule("b", "/b")]);
        let loads: Vec<_> = table.routes.iter().map(|r| &r.members[0].load).collect();
        assert!(Arc::ptr_eq(loads[0], loads[1]));
    }
}
