//! `spec.healthCheck`.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderValue, Method, Uri};

use super::checks;
use super::problems::Problems;
use crate::api::{self, CheckKind, CheckMethod};
use crate::table::checks::{HealthCheck, Question};

const MAX_STATUSES: usize = 16;
const MAX_THRESHOLD: u8 = 100;
const LEAST: Duration = Duration::from_millis(50);
/// What is good by default.
const GOOD: RangeInclusive<u16> = 200..=399;

/// Reads `spec.healthCheck`.
pub fn health_check(check: &api::HealthCheck, problems: &mut Problems) -> HealthCheck {
    for (name, value) in [
        ("successThreshold", check.success_threshold),
        ("failureThreshold", check.failure_threshold),
    ] {
        if !(1..=MAX_THRESHOLD).contains(&value) {
            let message = format!("must be from 1 to {MAX_THRESHOLD}");
            problems.add(format!("spec.healthCheck.{name}"), message);
        }
    }
    for (name, time) in [("interval", check.interval), ("timeout", check.timeout)] {
        if time.get() < LEAST {
            problems.add(format!("spec.healthCheck.{name}"), "must be at least 50ms");
        }
    }
    let ask = match check.kind {
        CheckKind::Http => Some(question(check, problems)),
        CheckKind::Tcp => {
            only_connects(check, problems);
            None
        }
    };
    HealthCheck {
        ask,
        interval: check.interval.get(),
        timeout: check.timeout.get(),
        successes: check.success_threshold.into(),
        failures: check.failure_threshold.into(),
        pass_first: check.pass_first,
    }
}

fn only_connects(check: &api::HealthCheck, problems: &mut Problems) {
    for (name, given) in [
        ("path", check.path.is_some()),
        ("host", check.host.is_some()),
        ("statuses", !check.statuses.is_empty()),
    ] {
        if given {
            let message = "must not be beside type Tcp, which only connects";
            problems.add(format!("spec.healthCheck.{name}"), message);
        }
    }
}

fn question(check: &api::HealthCheck, problems: &mut Problems) -> Question {
    let path = check.path.as_ref().and_then(|path| {
        let parse = |path: &str| path.parse::<Uri>().map_err(|_| "must be a path".to_owned());
        problems.read("spec.healthCheck.path", path, checks::CHECK_PATH, parse)
    });
    let host = check.host.as_ref().and_then(|host| {
        let parse = |host: &str| HeaderValue::try_from(host).map_err(|error| error.to_string());
        problems.read("spec.healthCheck.host", host, checks::AUTHORITY, parse)
    });
    Question {
        method: match check.method {
            CheckMethod::Get => Method::GET,
            CheckMethod::Head => Method::HEAD,
            CheckMethod::Options => Method::OPTIONS,
        },
        path,
        host,
        statuses: statuses(&check.statuses, problems),
    }
}

fn statuses(texts: &[String], problems: &mut Problems) -> Vec<RangeInclusive<u16>> {
    problems.at_most("spec.healthCheck.statuses", texts.len(), MAX_STATUSES);
    if texts.is_empty() {
        return vec![GOOD];
    }
    let range = |(at, text): (usize, &String)| {
        let field = format!("spec.healthCheck.statuses[{at}]");
        problems.read(&field, text, checks::STATUS_RANGE, range)
    };
    texts.iter().enumerate().filter_map(range).collect()
}

/// A status, or a range of them, that keeps its rules.
#[expect(clippy::unnecessary_wraps, reason = "as others that read a text")]
pub fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Ok(from.parse().unwrap_or(0)..=to.parse().unwrap_or(0))
}
