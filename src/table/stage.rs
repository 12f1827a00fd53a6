//! Whose turn it is to serve requests without a session: the lowest tier that can. In it the active
//! members, with a spare for each that cannot serve; when none of them can, its standbys.

use super::{Member, Route, State};

/// Members that serve side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    tier: u8,
    standby: bool,
    /// The spares before this index serve too.
    spares: usize,
}

impl Stage {
    /// The stages of a route, in the order of their turns.
    pub fn all<'r>(
        route: &'r Route,
        usable: &'r impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = Self> + 'r {
        let both = |tier: &'r u8| [(*tier, false), (*tier, true)];
        let stages = route.tiers.iter().flat_map(both);
        stages.map(move |(tier, standby)| {
            let spares = if standby { 0 } else { spares(route, tier, usable) };
            Self { tier, standby, spares }
        })
    }

    /// The one stage of a route whose members are alike.
    pub fn only(route: &Route) -> Option<Self> {
        let tier = route.tiers.first().filter(|_| route.are_alike)?;
        Some(Self { tier: *tier, standby: false, spares: 0 })
    }

    /// Another number for another stage of a route, unless it has more spares than anybody has.
    pub const fn key(&self) -> u64 {
        ((self.spares as u64) << 9) | ((self.tier as u64) << 1) | self.standby as u64
    }

    /// Whether the member of this index serves in this stage, if it is usable.
    pub fn has(&self, route: &Route, index: usize) -> bool {
        let member = &route.members[index];
        member.tier == self.tier
            && match member.state {
                State::Active => !self.standby,
                State::Standby => self.standby,
                State::Spare => index < self.spares,
                State::Draining | State::Disabled => false,
            }
    }

    /// Whether the member serves in this stage or in one before it, so that its return matters.
    pub fn reaches(&self, route: &Route, index: usize) -> bool {
        let member = &route.members[index];
        let earlier = member.tier < self.tier
            || (member.tier == self.tier && self.standby && member.state != State::Standby);
        self.has(route, index) || (earlier && serves(member))
    }
}

/// Whether a member ever gets requests without a session.
const fn serves(member: &Member) -> bool {
    matches!(member.state, State::Active | State::Standby | State::Spare)
}

/// The index before which the spares of a tier serve: as many as are usable and needed.
fn spares(route: &Route, tier: u8, usable: &impl Fn(usize) -> bool) -> usize {
    if !route.has_spares {
        return 0;
    }
    let of_tier = |index: &usize| route.members[*index].tier == tier;
    let is_spare = |index: &usize| route.members[*index].state == State::Spare;
    let is_missing = |index: &usize| {
        let is_reserve = matches!(route.members[*index].state, State::Standby | State::Spare);
        !(is_reserve || (route.members[*index].state == State::Active && usable(*index)))
    };
    let unresolved = route.unresolved.iter().map(|entry| &route.rule.entries[*entry]);
    let unresolved = unresolved.filter(|entry| {
        entry.tier == tier && !matches!(entry.state, State::Standby | State::Spare)
    });
    let all = || (0..route.members.len()).filter(of_tier);
    match all().filter(is_missing).count() + unresolved.count() {
        0 => 0,
        missing => {
            let mut called = all().filter(is_spare).filter(|index| usable(*index));
            called.nth(missing - 1).map_or(usize::MAX, |last| last + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::balance::{Ask, Method, NoMember, Pick, Tried, pick};
    use super::super::fixture::{entry, route, rule};
    use super::super::load::Failure;
    use super::super::tally::Session;
    use super::super::{Entry, Rule};
    use super::*;

    const OUT: Duration = Duration::from_secs(5);

    struct Site {
        route: Arc<Route>,
        now: Instant,
    }

    impl Site {
        fn new(entries: Vec<Entry>) -> Self {
            let now = Instant::now();
            let rule = Rule { entries, method: Method::RoundRobin, ..rule("app", "/") };
            Self { route: route(rule, now), now }
        }

        fn fail(&self, member: usize) {
            self.route.members[member].load.failed(Failure::Refused, self.now, OUT, self.now);
        }

        fn pick(&self, wanted: &[usize], tried: &[usize]) -> Result<Pick, NoMember> {
            let mut all = Tried::default();
            for member in tried {
                all.add(*member);
            }
            let ask = Ask { wanted, tried: &all, idempotent: true, tunnel: false, now: self.now };
            pick(&self.route, &ask, &mut fastrand::Rng::with_seed(1))
        }

        /// Who serves many requests; each as often as another.
        fn serving(&self) -> Vec<usize> {
            let picks: Vec<_> = (0..240).map(|_| self.pick(&[], &[]).unwrap().member).collect();
            let serving: BTreeSet<_> = picks.iter().copied().collect();
            for member in &serving {
                let count = picks.iter().filter(|pick| *pick == member).count();
                assert!(count.abs_diff(240 / serving.len()) <= 2, "{member} of {serving:?}");
            }
            serving.into_iter().collect()
        }
    }

    fn with(number: u8, state: State, tier: u8) -> Entry {
        Entry { state, tier, ..entry(&format!("m{number}"), number) }
    }

    #[test]
    fn a_tier_serves_only_while_none_below_it_can() {
        let active = |number, tier| with(number, State::Active, tier);
        let entries = vec![
            active(0, 40),
            active(1, 7),
            active(2, 7),
            with(3, State::Standby, 7),
            active(4, 0),
            with(5, State::Draining, 0),
        ];
        let site = Site::new(entries);
        for (failing, serving) in [(4, vec![1, 2]), (1, vec![2]), (2, vec![3]), (3, vec![0])] {
            site.fail(failing);
            assert_eq!(site.serving(), serving);
        }
        // All are out: the first tier is tried first.
        site.fail(0);
        assert_eq!(site.serving(), [4]);
        assert_eq!(site.route.members[site.pick(&[], &[4]).unwrap().member].tier, 7);
    }

    #[test]
    fn a_spare_serves_for_each_member_that_cannot() {
        let entries = vec![
            with(0, State::Active, 0),
            with(1, State::Active, 0),
            with(2, State::Spare, 0),
            with(3, State::Spare, 0),
            with(4, State::Standby, 0),
        ];
        let site = Site::new(entries);
        assert_eq!(site.serving(), [0, 1]);
        for (failing, serving) in [(0, vec![1, 2]), (2, vec![1, 3]), (1, vec![3]), (3, vec![4])] {
            site.fail(failing);
            assert_eq!(site.serving(), serving);
        }
    }

    #[test]
    fn members_that_are_switched_off_have_spares() {
        let entries = vec![
            with(0, State::Draining, 0),
            with(1, State::Disabled, 0),
            with(2, State::Spare, 0),
            with(3, State::Spare, 1),
            with(4, State::Spare, 0),
            with(5, State::Spare, 0),
        ];
        assert_eq!(Site::new(entries).serving(), [2, 4]);
    }

    #[test]
    fn who_is_back_is_found_out_though_a_higher_tier_serves() {
        let mut site = Site::new(vec![
            with(0, State::Active, 0),
            with(1, State::Standby, 0),
            with(2, State::Active, 1),
        ]);
        (0..3).for_each(|member| site.fail(member));
        site.now += OUT;
        let probes: Vec<_> = (0..3).map(|_| site.pick(&[], &[]).unwrap().member).collect();
        assert_eq!(probes, [0, 1, 2]);
        let mut site = Site::new(vec![with(0, State::Active, 0), with(1, State::Active, 1)]);
        site.fail(1);
        site.now += OUT;
        assert_eq!(site.pick(&[], &[]).map(|pick| (pick.member, pick.probe)), Ok((0, false)));
    }

    #[test]
    fn a_session_goes_where_its_member_leaves_it() {
        let to = |route: &str, entry: Entry| Entry { failover_route: Some(route.into()), ..entry };
        let site = Site::new(vec![
            to("m2", with(0, State::Active, 0)),
            with(1, State::Active, 0),
            to("m3", with(2, State::Disabled, 0)),
            to("m0", with(3, State::Standby, 0)),
        ]);
        let session = |wanted, tried: &[usize]| {
            site.pick(&[wanted], tried).map(|pick| (pick.member, pick.session))
        };
        assert_eq!(session(0, &[]), Ok((0, Session::Hit)));
        assert_eq!(session(2, &[]), Ok((3, Session::Failover)));
        assert_eq!(session(0, &[0]), Ok((3, Session::Failover)));
        site.fail(0);
        site.fail(3);
        // In a circle: balanced.
        assert_eq!(session(0, &[]), Ok((1, Session::Failover)));
    }

    #[test]
    fn a_session_without_an_address_goes_where_its_member_leaves_it() {
        let gone = Entry {
            target: super::super::fixture::url(super::super::Host::Name("gone".into())),
            failover_route: Some("m1".into()),
            ..with(0, State::Active, 0)
        };
        let site = Site::new(vec![gone, with(1, State::Active, 0), with(2, State::Active, 0)]);
        assert_eq!(site.route.named.get("m0"), Some(&[0][..]));
        assert_eq!(&*site.route.members[0].name, "m1");
    }

    #[test]
    fn of_one_route_the_standby_comes_last() {
        let same = |entry| Entry { route: super::super::RouteName::Fixed("a".into()), ..entry };
        let site = Site::new(vec![
            same(with(0, State::Standby, 0)),
            same(with(1, State::Active, 0)),
            with(2, State::Active, 0),
        ]);
        for _ in 0..8 {
            assert_eq!(site.pick(&[0, 1], &[]).unwrap().member, 1);
        }
        assert_eq!(site.pick(&[0, 1], &[1]).unwrap().member, 0);
    }
}
