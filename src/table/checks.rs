//! Health checks: what a member is asked, and what has come of it. Who asks is the proxy's business.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderValue, Method, Uri};

use super::tally::Counter;
use super::upstream::{MemberTls, Protocol};

/// How the members of a rule are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked; none: whether a connection is accepted.
    pub ask: Option<Question>,
    /// From one check of a member to the next.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Checks in a row that must pass before a member that fails is usable again.
    pub successes: u32,
    /// Checks in a row that must fail before a member is not usable any more.
    pub failures: u32,
    /// A new member is not usable before it has passed.
    pub pass_first: bool,
}

/// A request that checks a member, and its good answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// Path and query; none: the member's own path, or `*` for OPTIONS.
    pub path: Option<Uri>,
    /// The Host, if it is another than that of requests.
    pub host: Option<HeaderValue>,
    /// Statuses that are good.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// Whom to check, and how. What is the same for two rules is checked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkup {
    /// Where to connect.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// How TLS is spoken, where it is.
    pub tls: Option<MemberTls>,
    /// The Host of requests.
    pub host: HeaderValue,
    /// The member's own path.
    pub path: Arc<str>,
    /// How.
    pub check: Arc<HealthCheck>,
}

/// What has come of the checks of a member; it stands behind the table and survives every swap.
#[derive(Debug)]
pub struct Checked {
    /// Whom it is about.
    pub checkup: Checkup,
    /// Checks that were passed.
    pub passed: Counter,
    /// Checks that were not.
    pub failed: Counter,
    failing: AtomicBool,
    /// No check has failed: it is `failing`, if it is, because it has not passed yet.
    fresh: AtomicBool,
    /// It may have begun sessions before this process did.
    began: bool,
    /// Results in a row that speak against what is believed.
    against: AtomicU32,
}

/// What is known of a member when its checks begin.
#[derive(Clone, Copy, Debug)]
pub enum Known<'c> {
    /// Nothing: it joins others.
    Joins,
    /// Nothing, nor of the others: the process has just begun, or the rule is new.
    Begins,
    /// It serves without having been checked.
    Serves,
    /// What has come of the checks that it had.
    Checked(&'c Checked),
}

impl Checkup {
    /// The target of the request.
    #[must_use]
    pub fn uri(&self, question: &Question) -> Uri {
        let own = || {
            if question.method == Method::OPTIONS { "*" } else { &self.path }
                .parse()
                .unwrap_or_default()
        };
        question.path.clone().unwrap_or_else(own)
    }
}

impl Question {
    /// Whether an answer is good.
    #[must_use]
    pub fn accepts(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }
}

impl Checked {
    /// Of one that was not checked so yet. Who has served goes on serving, and who was failing goes on
    /// failing, until the checks say otherwise.
    #[must_use]
    pub fn new(checkup: Checkup, known: Known<'_>) -> Self {
        let first = checkup.check.pass_first;
        let (failing, fresh) = match known {
            Known::Joins | Known::Begins => (first, true),
            Known::Serves => (false, true),
            Known::Checked(old) => (old.is_failing() && (first || !old.is_fresh()), old.is_fresh()),
        };
        let checked = Self {
            checkup,
            failing: failing.into(),
            fresh: fresh.into(),
            began: matches!(known, Known::Begins),
            passed: Counter::default(),
            failed: Counter::default(),
            against: AtomicU32::new(0),
        };
        match known {
            Known::Checked(old) => checked.after(old),
            _ => checked,
        }
    }

    fn after(mut self, old: &Self) -> Self {
        self.began = old.began;
        self.passed.add(old.passed.get());
        self.failed.add(old.failed.get());
        if self.checkup.check.ask == old.checkup.check.ask {
            self.against = old.against.load(Relaxed).into();
        }
        self
    }

    /// Whether the member is not to be used.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Whether its own sessions are its all the same: nothing speaks against it but that this process
    /// has not seen it pass yet.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.began && self.is_fresh()
    }

    fn is_fresh(&self) -> bool {
        self.fresh.load(Relaxed)
    }

    /// Takes a result in. True if the member is usable from now on and was not, or the other way round.
    pub fn record(&self, passes: bool) -> bool {
        if passes { &self.passed } else { &self.failed }.inc();
        if !passes {
            self.fresh.store(false, Relaxed);
        }
        let failing = self.is_failing();
        if passes != failing {
            self.against.store(0, Relaxed);
            return false;
        }
        let check = &self.checkup.check;
        let needed = if failing { check.successes } else { check.failures };
        if self.against.fetch_add(1, Relaxed) + 1 < needed {
            return false;
        }
        self.against.store(0, Relaxed);
        self.failing.store(!failing, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkup(successes: u32, failures: u32, pass_first: bool) -> Checkup {
        let check = HealthCheck {
            ask: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes,
            failures,
            pass_first,
        };
        Checkup {
            address: ([127, 0, 0, 1], 80).into(),
            protocol: Protocol::Http1,
            tls: None,
            host: HeaderValue::from_static("a"),
            path: "/media/".into(),
            check: Arc::new(check),
        }
    }

    fn checked(successes: u32, failures: u32, pass_first: bool) -> Checked {
        Checked::new(checkup(successes, failures, pass_first), Known::Joins)
    }

    #[test]
    fn results_in_a_row_count_and_one_between_them_ends_the_row() {
        let checked = checked(2, 3, false);
        let results = [false, false, true, false, false, false, true, false, true, true, true];
        let failing: Vec<_> = results
            .iter()
            .map(|passes| {
                let news = checked.record(*passes);
                (checked.is_failing(), news)
            })
            .collect();
        let expected = [
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (true, true),
            (true, false),
            (true, false),
            (true, false),
            (false, true),
            (false, false),
        ];
        assert_eq!(failing, expected);
        assert_eq!((checked.passed.get(), checked.failed.get()), (5, 6));
    }

    #[test]
    fn who_must_pass_first_is_unusable_until_then() {
        let checked = checked(2, 3, true);
        assert!(checked.is_failing() && !checked.record(true));
        assert!(checked.is_failing() && checked.record(true) && !checked.is_failing());
    }

    #[test]
    fn another_check_goes_on_from_what_the_last_one_has_found() {
        let again = |old: &Checked, first| {
            Checked::new(checkup(2, 3, first), Known::Checked(old)).is_failing()
        };
        let old = checked(1, 3, false);
        assert!(!old.record(false) && !old.record(false));
        for first in [false, true] {
            assert!(!again(&old, first));
        }
        // Two have failed already.
        let new = Checked::new(checkup(2, 3, false), Known::Checked(&old));
        assert!(new.record(false) && new.is_failing());
        assert_eq!((new.passed.get(), new.failed.get()), (0, 3));
        for first in [false, true] {
            assert!(again(&new, first));
        }
        // One that was to pass first, and has not yet, need not any more.
        let waits = checked(2, 3, true);
        assert!(again(&waits, true) && !again(&waits, false));
        assert!(!Checked::new(checkup(2, 3, true), Known::Serves).is_failing());
    }

    #[test]
    fn who_has_not_passed_yet_keeps_its_sessions_until_a_check_fails() {
        let begins = || Checked::new(checkup(2, 3, true), Known::Begins);
        let (one, joins) = (begins(), checked(2, 3, true));
        assert!(one.is_failing() && one.keeps_sessions() && !joins.keeps_sessions());
        assert!(!one.record(true) && one.keeps_sessions());
        let edited = Checked::new(checkup(2, 2, true), Known::Checked(&one));
        assert!(edited.keeps_sessions());
        assert!(!one.record(false) && !one.keeps_sessions());
    }

    #[test]
    fn the_target_is_the_path_that_is_given_or_the_members_own() {
        let checked = checked(1, 1, false);
        let question = |method, path: Option<&'static str>| Question {
            method,
            path: path.map(Uri::from_static),
            host: None,
            statuses: vec![200..=204],
        };
        for (method, path, expected) in [
            (Method::GET, None, "/media/"),
            (Method::OPTIONS, None, "*"),
            (Method::HEAD, Some("/health?x=1"), "/health?x=1"),
        ] {
            assert_eq!(checked.checkup.uri(&question(method, path)).to_string(), expected);
        }
        let question = question(Method::GET, None);
        assert!(question.accepts(204) && !question.accepts(205));
    }
}
