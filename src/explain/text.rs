//! An explanation as text.

use std::fmt::Write;
use std::time::Duration;

use super::{Attempt, Because, Explanation, Found, Gave, Outcome, Seen};
use crate::table::balance::Standing;
use crate::table::explain::{Other, Why};

/// Balancers that do not match which are named.
const OTHERS: usize = 20;

/// All of it, in paragraphs.
#[must_use]
pub fn whole(e: &Explanation) -> String {
    let mut text = String::new();
    beginning(&mut text, e);
    matching(&mut text, e);
    session(&mut text, e);
    members(&mut text, e);
    attempts(&mut text, e);
    rewritten(&mut text, e);
    text
}

/// What tells one from another, in a line.
#[must_use]
pub fn short(e: &Explanation) -> String {
    let answer = e.answer.as_ref();
    let status = answer.and_then(|answer| answer.status);
    format!(
        "{:.3} {} {} {} {} {}\n",
        e.at,
        e.id.as_deref().unwrap_or("-"),
        because(e, ","),
        status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        e.matched.as_ref().map_or_else(|| "-".to_owned(), |matched| matched.rule.to_string()),
        asked(e),
    )
}

/// Adds a line; writing to a String cannot fail.
macro_rules! line {
    ($text:expr, $($arguments:tt)*) => { let _ = writeln!($text, $($arguments)*); };
}

fn because(e: &Explanation, separator: &str) -> String {
    e.because.iter().copied().map(Because::label).collect::<Vec<_>>().join(separator)
}

fn asked(e: &Explanation) -> String {
    e.head.as_ref().map_or_else(
        || "-".to_owned(),
        |head| {
            let scheme = if head.https { "https" } else { "http" };
            format!("{} {scheme}://{}{}", head.method, head.authority, head.target)
        },
    )
}

fn beginning(text: &mut String, e: &Explanation) {
    match &e.id {
        Some(id) => {
            line!(text, "request {id} at {:.3}, kept because it was {}", e.at, because(e, ", "));
        }
        None => {
            line!(text, "a described request: nothing is sent");
        }
    }
    if let Some(head) = &e.head {
        line!(text, "  {} from {}", asked(e), head.client);
        for (name, value) in &head.fields {
            line!(text, "  {name}: {value}");
        }
    }
    if let Some(answer) = &e.answer {
        let status = answer.status.map_or("nothing".to_owned(), |status| status.to_string());
        let from = match (&answer.member, answer.reason) {
            (_, Some(reason)) if !answer.cut => format!(" by Gibbon itself: {reason}"),
            (Some((name, address)), _) => format!(" by {name} {address}"),
            (None, _) => String::new(),
        };
        let grpc = answer.grpc_status.map(|status| format!(" (grpc-status {status})"));
        let grpc = grpc.unwrap_or_default();
        let cut = match answer.reason.filter(|_| answer.cut) {
            Some(reason) => format!("; it was cut off: {reason}"),
            None if answer.cut => "; it was cut off".to_owned(),
            None => String::new(),
        };
        let (took, sent) = (time(answer.duration), answer.sent);
        line!(text, "answered {status}{grpc}{from}, {sent} bytes of body in {took}{cut}");
    }
}

fn matching(text: &mut String, e: &Explanation) {
    text.push('\n');
    match &e.matched {
        Some(matched) => {
            let (rule, host, path) = (&matched.rule, &matched.host, &matched.path);
            if host.is_empty() {
                line!(text, "Balancer {rule}: it has path {path}");
            } else {
                line!(text, "Balancer {rule}: it has host {host} and path {path}");
            }
        }
        None => {
            line!(text, "no Balancer");
        }
    }
    if e.others.is_none() && e.head.is_some() {
        line!(text, "  why not others is not known any more: the Balancers have changed since");
    }
    let others = e.others.iter().flatten();
    let (near, far): (Vec<_>, Vec<_>) = others.partition(|other| other.why != Why::OtherHost);
    for other in near.iter().take(OTHERS) {
        line!(text, "  not {}: {}", other.rule, reason(other));
    }
    if near.len() > OTHERS {
        line!(text, "  not {} more with the host", near.len() - OTHERS);
    }
    match far.as_slice() {
        [] => {}
        [one] => {
            line!(text, "  not {}: {}", one.rule, reason(one));
        }
        several => {
            line!(text, "  not {} more: they have other hosts", several.len());
        }
    }
    if let Some(instead) = &e.instead {
        line!(text, "  answered without a member: {instead}");
    }
    for what in &e.unknown {
        line!(text, "  not known here: {what}");
    }
}

fn reason(other: &Other) -> String {
    let host = other.host.as_deref().unwrap_or_default();
    let path = &other.path;
    match &other.why {
        Why::OtherHost => "it has other hosts".to_owned(),
        Why::OtherPath => format!("its path {path} is not the beginning of the request's"),
        Why::HostOwned(namespace) => format!("the host belongs to namespace {namespace}"),
        Why::Conflict(rule) => format!("{rule} has host {host} and path {path} and comes first"),
        Why::LessSpecificHost(than) => format!("its host {host} is less specific than {than}"),
        Why::ShorterPath(than) => format!("its path {path} is less specific than {than}"),
    }
}

fn session(text: &mut String, e: &Explanation) {
    let Some(result) = e.session else { return };
    let meaning = match result {
        "new" => "it names no member",
        "hit" => "it goes to the member that it names",
        "lost" => "it names a member that is not there",
        "failover" => "the member that it names cannot be used, and another takes over",
        "refused" => "the member that it names cannot be used, and no other may take over",
        _ => "",
    };
    line!(text, "\nsession {result}: {meaning}");
    for found in &e.findings {
        line!(text, "  {} {}: {}", found.place.label(), found.name, gave(found));
    }
}

fn gave(found: &Found) -> String {
    let members = || match found.members.as_slice() {
        [] => "which no member has".to_owned(),
        members => format!("of {}", members.join(", ")),
    };
    match &found.gave {
        Gave::Nothing => "no route found in it".to_owned(),
        Gave::Route(route) => format!("route {route}, {}", members()),
        Gave::Unknown(characters) => {
            format!("a route of {characters} characters, {}", members())
        }
    }
}

fn members(text: &mut String, e: &Explanation) {
    if e.members.is_empty() && e.pick.is_none() {
        return;
    }
    let when = match (e.id.is_some(), e.because.contains(&Because::Sampled)) {
        (false, _) => "as they are",
        (true, true) => "as they were when the request came",
        (true, false) => "as they were when its first attempt had failed",
    };
    line!(text, "\nmembers {when}");
    let head = [
        "",
        "address",
        "state",
        "standing",
        "in flight",
        "estimate",
        "failing",
        "weight",
        "effective",
        "share",
        "part",
        "score",
    ];
    let rows: Vec<[String; 12]> = e.members.iter().map(row).collect();
    let width = |at: usize| {
        rows.iter().map(|row| row[at].len()).chain([head[at].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 12] = std::array::from_fn(width);
    for row in std::iter::once(&head.map(str::to_owned)).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        line!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    if e.more_members > 0 {
        line!(text, "  and {} more", e.more_members);
    }
    if let Some(pick) = &e.pick {
        match &pick.member {
            Some((name, address)) => {
                line!(text, "picked {name} {address}: {}", pick.why);
            }
            None => {
                line!(text, "picked nobody: {}", pick.why);
            }
        }
    }
}

fn row(seen: &Seen) -> [String; 12] {
    let candidate = &seen.candidate;
    let excluded = seen.excluded().map(|left| match candidate.standing {
        Standing::Excluded => format!(" for {}", time(left)),
        _ => format!(", excluded for {}", time(left)),
    });
    let estimate = Duration::from_secs_f64(candidate.estimate.max(0.0));
    let estimate = match (candidate.measured, estimate.is_zero()) {
        (true, _) => time(estimate),
        // As the others take.
        (false, false) => format!("{}?", time(estimate)),
        (false, true) => "?".to_owned(),
    };
    [
        seen.name.to_string(),
        seen.address.to_string(),
        seen.state.to_owned(),
        candidate.standing.label().to_owned() + &excluded.unwrap_or_default(),
        seen.max_in_flight.map_or_else(
            || candidate.in_flight.to_string(),
            |most| format!("{} of {most}", candidate.in_flight),
        ),
        estimate,
        percent(candidate.failure_rate),
        number(seen.weight),
        number(candidate.effective),
        seen.share.map_or_else(|| "-".to_owned(), number),
        percent(candidate.part),
        number(candidate.score),
    ]
}

fn attempts(text: &mut String, e: &Explanation) {
    if e.attempts.is_empty() {
        return;
    }
    line!(text, "\nattempts");
    for (number, attempt) in e.attempts.iter().enumerate() {
        line!(text, "  {}. {}", number + 1, described(attempt));
    }
}

fn described(attempt: &Attempt) -> String {
    let result = match attempt.result {
        Outcome::Status(status) => status.to_string(),
        Outcome::Failed(reason) => reason.to_owned(),
        Outcome::Stale => "it had closed a kept connection; asked once more".to_owned(),
    };
    let probe = if attempt.probe { ", to find out whether it is back" } else { "" };
    let excluded = attempt.excluded.map(|time| format!(", excluded for {}", self::time(time)));
    format!(
        "{} {} after {}, took {}: {result}{probe}{}",
        attempt.member,
        attempt.address,
        time(attempt.at),
        time(attempt.took),
        excluded.unwrap_or_default(),
    )
}

fn rewritten(text: &mut String, e: &Explanation) {
    if e.rewritten.is_empty() {
        return;
    }
    line!(text, "\nrewritten");
    for change in &e.rewritten {
        let (message, what) = (change.message, &change.what);
        match (&change.from, &change.to) {
            (Some(from), Some(to)) => {
                line!(text, "  {message} {what}: {from} -> {to}");
            }
            (None, Some(to)) => {
                line!(text, "  {message} {what}: set to {to}");
            }
            (_, None) => {
                line!(text, "  {message} {what}: removed");
            }
        }
    }
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{:.2}ms", seconds * 1e3) } else { format!("{seconds:.1}s") }
}

fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// Three digits are enough.
fn number(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e6 {
        format!("{number}")
    } else if (0.001..1e6).contains(&number.abs()) {
        format!("{number:.3}")
    } else {
        format!("{number:.1e}")
    }
}
