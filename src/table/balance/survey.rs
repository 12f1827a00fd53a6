//! What a pick sees of each member, for people.

use super::super::stage::Stage;
use super::{Ask, Pool, admits, is_usable, stage};
use crate::table::load::Admission;
use crate::table::{Route, State};

/// A member as a pick sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Index into the route's members.
    pub member: usize,
    /// Whether it could be picked, and if not, why.
    pub standing: Standing,
    /// Whether it takes requests at all, as far as its failures are concerned.
    pub admission: Admission,
    /// Seconds to its response head.
    pub estimate: f64,
    /// Whether the estimate was measured; else it is what others take.
    pub measured: bool,
    /// Requests under way.
    pub in_flight: u32,
    /// The part of its attempts that failed lately, 0 to 1.
    pub failure_rate: f64,
    /// The weight that it is picked by.
    pub effective: f64,
    /// The part of the requests without a session that it gets as things are, 0 to 1.
    pub part: f64,
    /// What it is picked by: the least is best.
    pub score: f64,
}

/// Whether a member could be picked for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to the request's session.
    Session,
    /// The next request finds out whether it is back.
    Probe,
    /// It is one of those to choose from.
    Usable,
    /// It failed this request already.
    Tried,
    /// It has as many requests as it may have; it is waited for.
    Full,
    /// It is excluded; if all are, it is taken nevertheless.
    Excluded,
    /// Its turn comes only while others are not usable: it is a spare or a standby, or of a later tier.
    Standby,
    /// It fails its health checks.
    Failing,
    /// It keeps its sessions and gets no new ones.
    Draining,
    /// It gets nothing.
    Disabled,
    /// Its entry has a share of nothing.
    Shareless,
}

impl Standing {
    /// The label on pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Probe => "probe",
            Self::Usable => "usable",
            Self::Tried => "tried",
            Self::Full => "full",
            Self::Excluded => "excluded",
            Self::Standby => "standby",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Shareless => "shareless",
        }
    }
}

/// All members as a pick for this request would see them; changes nothing.
#[must_use]
pub fn survey(route: &Route, ask: &Ask<'_>) -> Vec<Candidate> {
    let turn = stage(route, ask);
    let fits = |index: usize| {
        turn.is_some_and(|stage| stage.has(route, index))
            && !route.members[index].is_full()
            && is_usable(route, ask, index)
    };
    let fitting = |group: usize| route.groups[group].range.clone().filter(|at| fits(*at));
    let shared = |group: &usize| route.groups[*group].share > 0.0 && fitting(*group).count() > 0;
    let groups = || 0..route.groups.len();
    let total: f64 = groups().filter(shared).map(|group| route.groups[group].share).sum();
    let means = route.means();
    let mut candidates = Vec::with_capacity(route.members.len());
    for at in groups() {
        let group = &route.groups[at];
        let (pool, clock) = (Pool::of(route, group, ask.now, turn.as_ref()), group.cursor.get());
        let weights: f64 = fitting(at).map(|m| pool.weight(&route.members[m], ask.now)).sum();
        let share = if shared(&at) { group.share / total } else { 0.0 };
        for index in group.range.clone() {
            let member = &route.members[index];
            let effective = pool.weight(member, ask.now);
            candidates.push(Candidate {
                member: index,
                standing: standing(route, index, ask, turn.as_ref()),
                admission: member.admission(ask.now),
                estimate: member.load.latency(means[at], ask.now),
                measured: member.load.recorded().is_some(),
                in_flight: member.load.in_flight(),
                failure_rate: member.load.failure_rate(ask.now),
                effective,
                part: if fits(index) { share * effective / weights } else { 0.0 },
                score: pool.score(member, clock, ask).value,
            });
        }
    }
    candidates
}

fn standing(route: &Route, index: usize, ask: &Ask<'_>, turn: Option<&Stage>) -> Standing {
    let member = &route.members[index];
    let admission = member.admission(ask.now);
    match member.state {
        State::Disabled => Standing::Disabled,
        _ if ask.tried.has(index) => Standing::Tried,
        _ if member.is_failing() && !member.keeps_sessions(ask.now) => Standing::Failing,
        State::Active if member.is_full() => Standing::Full,
        _ if ask.wanted.contains(&index) && admits(member, ask) => Standing::Session,
        _ if member.is_failing() => Standing::Failing,
        _ if matches!(admission, Admission::Excluded(_)) => Standing::Excluded,
        State::Draining => Standing::Draining,
        _ if matches!(admission, Admission::Probe(_)) && admits(member, ask) => Standing::Probe,
        _ if matches!(admission, Admission::Probe(_)) => Standing::Excluded,
        _ if route.groups[member.group].share == 0.0 => Standing::Shareless,
        _ if !turn.is_some_and(|stage| stage.has(route, index)) => Standing::Standby,
        State::Active | State::Standby | State::Spare => Standing::Usable,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::table::balance::{Tried, pick, preview};
    use crate::table::fixture::{entry, route, rule, weighted};
    use crate::table::load::Failure;
    use crate::table::{Entry, Rule};

    const EXCLUDED: Duration = Duration::from_secs(5);

    fn ask<'a>(wanted: &'a [usize], tried: &'a Tried, now: Instant) -> Ask<'a> {
        Ask { wanted, tried, idempotent: true, tunnel: false, now }
    }

    /// Four members, the first slower, the last with a share of its own.
    fn uneven(now: Instant) -> Arc<Route> {
        let shared = |name, number, share| Entry { share: Some(share), ..entry(name, number) };
        let entries = vec![
            shared("a", 1, 40.0),
            shared("b", 2, 30.0),
            shared("c", 3, 29.0),
            shared("d", 4, 1.0),
        ];
        let route = route(Rule { entries, ..rule("app", "/") }, now);
        for (member, millis) in route.members.iter().zip([50, 5, 5, 5]) {
            member.load.succeeded(now, Duration::from_millis(millis), now);
        }
        route
    }

    fn everything(route: &Route) -> String {
        let members = route.members.iter().map(|m| format!("{:?}{:?}", m.load, m.tally.ledger));
        let groups = route.groups.iter().map(|group| format!("{:?}", group.cursor));
        members.chain(groups).collect::<String>() + &format!("{:?}", route.dealer)
    }

    #[test]
    fn a_preview_changes_nothing_and_says_what_the_next_pick_will_be() {
        let now = Instant::now();
        for route in [uneven(now), route(weighted(&[1.0, 2.0, 5.0]), now)] {
            let first = route.members[0].load.failed(Failure::Refused, now, EXCLUDED, now);
            assert!(first.is_some());
            let tried = Tried::default();
            // The first one's exclusion ends on the way: a probe is due.
            for step in 0..400_u32 {
                let now = now + Duration::from_millis(20) * step;
                let wanted: &[usize] = if step % 7 == 0 { &[1] } else { &[] };
                let ask = ask(wanted, &tried, now);
                let mut rng = fastrand::Rng::with_seed(1);
                let before = everything(&route);
                let (seen, _) = (preview(&route, &ask, &mut rng), survey(&route, &ask));
                assert_eq!(everything(&route), before);
                assert_eq!(pick(&route, &ask, &mut rng), seen, "step {step}");
                assert_ne!(everything(&route), before);
            }
        }
    }

    #[test]
    fn the_parts_are_those_that_picks_give_out() {
        let now = Instant::now();
        let route = uneven(now);
        let tried = Tried::default();
        let ask = ask(&[], &tried, now);
        let parts: Vec<f64> = survey(&route, &ask).iter().map(|seen| seen.part).collect();
        let mut picked = [0.0; 4];
        for _ in 0..1000 {
            let pick = pick(&route, &ask, &mut fastrand::Rng::with_seed(1)).unwrap();
            picked[pick.member] += 0.001;
        }
        for (part, picked) in parts.iter().zip(picked) {
            assert!((part - picked).abs() < 0.005, "{parts:?} {picked}");
        }
    }

    #[test]
    fn each_member_stands_as_it_is() {
        let now = Instant::now();
        let with = |name, number, state| Entry { state, ..entry(name, number) };
        let entries = vec![
            entry("usable", 1),
            entry("excluded", 2),
            with("standby", 3, State::Standby),
            with("draining", 4, State::Draining),
            with("disabled", 5, State::Disabled),
            entry("tried", 6),
            entry("session", 7),
            Entry { max_in_flight: Some(0), ..entry("full", 8) },
        ];
        let route = route(Rule { entries, ..rule("app", "/") }, now);
        let excluded = route.members[1].load.failed(Failure::Refused, now, EXCLUDED, now);
        assert!(excluded.is_some());
        let mut tried = Tried::default();
        tried.add(5);
        let seen = survey(&route, &ask(&[6], &tried, now));
        for candidate in &seen {
            let member = &route.members[candidate.member];
            assert_eq!(candidate.standing.label(), &*member.name);
        }
        assert_eq!(seen[1].admission, Admission::Excluded(EXCLUDED));
        let later = survey(&route, &ask(&[], &tried, now + EXCLUDED));
        assert_eq!(later[1].standing, Standing::Probe);
    }
}
