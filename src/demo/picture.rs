//! What the demo shows: the table and the tallies at one instant, and how they read as text.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::members::Member;
use super::traffic::Visits;
use crate::metrics::condition;
use crate::table::load::Admission;
use crate::table::tally::Session;
use crate::table::{self, Route, Table};

/// Rates and shares are of this time.
const WINDOW: Duration = Duration::from_secs(5);
/// Columns from which addresses are shown.
const WIDE: usize = 100;

/// One member at one instant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    name: &'static str,
    address: Option<SocketAddr>,
    balancer: String,
    state: String,
    requests: u64,
    /// Requests a second, and their part in the Balancer's.
    rate: f64,
    share: f64,
    /// Seconds.
    latency: f64,
    in_flight: u32,
    failure_rate: f64,
    /// None if it is stopped.
    delay: Option<Duration>,
}

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// In the order of the members' keys.
    pub rows: Vec<Row>,
    visits: u64,
    errors: u64,
    sessions: [u64; 4],
    retries: u64,
}

/// The sessions that are shown: all results but those that need `failover: false`.
const SESSIONS: [Session; 4] = [Session::Hit, Session::New, Session::Lost, Session::Failover];

impl Picture {
    /// How it looks now.
    #[must_use]
    pub fn take(members: &[std::sync::Arc<Member>], table: &Table, visits: &Visits) -> Self {
        let now = Instant::now();
        let sticky = || table.routes.iter().filter(|route| route.rule.sticky.is_some());
        let count = |session| sticky().map(|route| route.tally.sessions(session)).sum();
        Self {
            rows: members.iter().map(|member| Row::take(member, table, now)).collect(),
            visits: visits.requests.get(),
            errors: visits.errors.get(),
            sessions: SESSIONS.map(count),
            retries: table.routes.iter().map(|route| route.tally.retries.get()).sum(),
        }
    }
}

impl Row {
    fn take(member: &Member, table: &Table, now: Instant) -> Self {
        let row = Self {
            name: member.name,
            address: Some(member.address),
            delay: member.is_running().then(|| member.delay()),
            ..Self::default()
        };
        let mut served = table.routes.iter().flat_map(|r| r.members.iter().map(move |m| (r, m)));
        match served.find(|(_, served)| served.address == member.address) {
            Some((route, served)) => row.fill(route, served, now),
            None => Self { state: "not in use".into(), ..row },
        }
    }

    fn fill(self, route: &Route, member: &table::Member, now: Instant) -> Self {
        let state = match member.load.admission(now) {
            Admission::Excluded(time) => format!("excluded {:.0}s", time.as_secs_f64().ceil()),
            _ => condition(member, now).into(),
        };
        Self {
            balancer: route.rule.id.name.to_string(),
            state,
            requests: member.tally.requests.get(),
            latency: member.load.latency(route.means()[member.group], now),
            in_flight: member.load.in_flight(),
            failure_rate: member.load.failure_rate(now),
            ..self
        }
    }

    /// Whether something is wrong with it.
    #[must_use]
    pub fn alarms(&self) -> bool {
        self.state != "usable"
    }
}

/// Counts of the last seconds, for the rates.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Instant, Vec<u64>)>);

impl History {
    /// Remembers a picture's counts, and writes rates and shares into it.
    pub fn rate(&mut self, picture: &mut Picture, now: Instant) {
        self.0.push_back((now, picture.rows.iter().map(|row| row.requests).collect()));
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        let Some((since, before)) = self.0.front() else { return };
        let seconds = now.duration_since(*since).as_secs_f64().max(0.001);
        for (row, before) in picture.rows.iter_mut().zip(before) {
            row.rate = row.requests.saturating_sub(*before) as f64 / seconds;
        }
        picture.share();
    }
}

impl Picture {
    fn share(&mut self) {
        let rates: Vec<_> = self.rows.iter().map(|r| (r.balancer.clone(), r.rate)).collect();
        for row in &mut self.rows {
            let of = rates.iter().filter(|(balancer, _)| *balancer == row.balancer);
            let sum: f64 = of.map(|(_, rate)| rate).sum();
            row.share = if sum > 0.0 { row.rate / sum } else { 0.0 };
        }
    }

    /// The heads of the columns.
    #[must_use]
    pub fn heads(width: usize) -> String {
        let address = if width >= WIDE { format!("{:<16}", "address") } else { String::new() };
        format!(
            "  member  balancer {address}state          reqs req/s share latency flight fail   delay"
        )
    }

    /// A line of the table.
    #[must_use]
    pub fn row(&self, index: usize, width: usize) -> String {
        let row = &self.rows[index];
        let address = row.address.filter(|_| width >= WIDE);
        let address = address.map_or(String::new(), |address| format!("{address:<16}"));
        format!(
            "{} {:<7} {:<8} {address}{:<12} {:>6} {:>5.1} {:>4.0}% {:>7} {:>6} {:>3.0}% {:>7}",
            index + 1,
            row.name,
            row.balancer,
            row.state,
            row.requests,
            row.rate,
            row.share * 100.0,
            time(row.latency),
            row.in_flight,
            row.failure_rate * 100.0,
            row.delay.map_or("stopped".into(), |delay| time(delay.as_secs_f64())),
        )
    }

    /// What visitors saw.
    #[must_use]
    pub fn visitors(&self) -> String {
        format!("Visitors: {} requests, {} errors seen by them", self.visits, self.errors)
    }

    /// What Gibbon did about it.
    #[must_use]
    pub fn sessions(&self) -> String {
        let [hit, new, lost, failover] = self.sessions;
        let retries = self.retries;
        format!(
            "Sessions: {hit} hit, {new} new, {lost} lost, {failover} failover. Retries: {retries}"
        )
    }

    /// The same in one line; what is as it should be is left out.
    #[must_use]
    pub fn compact(&self, since: Duration) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::compact).collect();
        let [hit, new, lost, failover] = self.sessions;
        format!(
            "{:>4}s | {} | {} requests {} errors | hit {hit} new {new} lost {lost} failover {failover} retries {}",
            since.as_secs(),
            rows.join(" | "),
            self.visits,
            self.errors,
            self.retries
        )
    }

    /// The last line.
    #[must_use]
    pub fn summary(&self, since: Duration) -> String {
        let member = |row: &Row| format!("{} {}", row.name, row.requests);
        let members: Vec<_> = self.rows.iter().map(member).collect();
        let time = since.as_secs_f64();
        format!(
            "{time:.1} s. {}. {}. By member: {}.",
            self.visitors(),
            self.sessions(),
            members.join(", ")
        )
    }
}

impl Row {
    fn compact(&self) -> String {
        let share = self.share * 100.0;
        let mut words = vec![
            format!("{} {} {:.1}/s {share:.0}%", self.name, self.requests, self.rate),
            time(self.latency),
        ];
        if self.in_flight > 0 {
            words.push(format!("{} in flight", self.in_flight));
        }
        if self.failure_rate >= 0.005 {
            words.push(format!("{:.0}% fail", self.failure_rate * 100.0));
        }
        if self.alarms() {
            words.push(self.state.clone());
        }
        words.join(" ")
    }
}

/// Seconds as people read them, in at most seven characters.
fn time(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    match millis {
        ..9.95 => format!("{millis:.1}ms"),
        ..999.5 => format!("{millis:.0}ms"),
        _ => format!("{seconds:.2}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(requests: [u64; 4]) -> Picture {
        let names = ["app1", "app2", "static1", "static2"];
        let row = |(name, requests): (&'static str, u64)| Row {
            name,
            balancer: name.trim_end_matches(char::is_numeric).into(),
            address: Some(([127, 0, 0, 1], 65535).into()),
            state: "excluded 60s".into(),
            delay: Some(Duration::from_micros(999_400)),
            requests,
            ..Row::default()
        };
        Picture { rows: names.into_iter().zip(requests).map(row).collect(), ..Picture::default() }
    }

    #[test]
    fn rates_and_shares_are_of_the_last_seconds_and_of_one_balancer() {
        let (mut history, start) = (History::default(), Instant::now());
        for second in 0..=10u64 {
            let mut picture = picture([second.pow(2), second, 0, 0]);
            history.rate(&mut picture, start + Duration::from_secs(second));
            let rates: Vec<_> = picture.rows.iter().map(|row| row.rate.round()).collect();
            let shares: Vec<_> = picture.rows.iter().map(|r| (r.share * 100.0).round()).collect();
            if second == 10 {
                assert_eq!(rates, [15.0, 1.0, 0.0, 0.0]);
                assert_eq!(shares, [94.0, 6.0, 0.0, 0.0]);
            }
        }
    }

    #[test]
    fn a_counter_that_begins_again_is_no_rate() {
        let (mut history, start) = (History::default(), Instant::now());
        history.rate(&mut picture([100, 0, 0, 0]), start);
        let mut picture = picture([1, 0, 0, 0]);
        history.rate(&mut picture, start + WINDOW);
        assert!(picture.rows[0].rate.abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_fits_its_columns() {
        let mut picture = picture([999_999; 4]);
        for row in &mut picture.rows {
            (row.rate, row.share, row.failure_rate) = (999.9, 1.0, 1.0);
            (row.latency, row.in_flight) = (12.34, 999_999);
        }
        for (width, most) in [(80, 80), (100, 100)] {
            let lines = [Picture::heads(width), picture.row(0, width), picture.row(3, width)];
            assert_eq!(lines[0].len(), lines[1].len(), "{lines:#?}");
            assert_eq!(lines[0].len(), lines[2].len());
            assert!(lines[0].len() <= most);
        }
        assert!(picture.row(0, 100).contains(" 127.0.0.1:65535 "));
    }

    #[test]
    fn the_compact_line_leaves_out_what_is_as_it_should_be() {
        let mut picture = picture([5, 0, 0, 0]);
        picture.rows[0].state = "usable".into();
        let line = picture.compact(Duration::from_secs(7));
        assert!(line.starts_with("   7s | app1 5 0.0/s 0% 0.0ms | app2 0 0.0/s"), "{line}");
        assert!(line.contains("0.0ms excluded 60s |"), "{line}");
    }

    #[test]
    fn times_have_a_unit() {
        let texts = [0.0004, 0.00994, 0.04, 0.9994, 1.0, 12.3].map(time);
        assert_eq!(texts, ["0.4ms", "9.9ms", "40ms", "999ms", "1.00s", "12.30s"]);
    }
}
