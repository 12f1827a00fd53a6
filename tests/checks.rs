//! Health checks: what members are asked, and what becomes of those that are not well.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;

use support::http2::{FrameMember, answer, max_streams};
use support::{Act, Gibbon, Member, balancer, eventually, member, ok, response};

const HOST: &str = "www.site.com";
const CHECK: &str = "healthCheck: {path: '/health?deep=1', interval: 50ms, failureThreshold: 2, successThreshold: 2}";

/// Answers checks with this status, and all else with its name.
fn play(member: &Member, name: &'static str, status: &'static str) {
    member.act_with(move |request| {
        if request.target().starts_with("/health") || request.target() == "*" {
            Act::Write(response(status, &[], "checked"))
        } else {
            ok(name)
        }
    });
}

fn checks(member: &Member) -> usize {
    member.received().iter().filter(|request| request.target() != "/").count()
}

/// Who answers several requests.
fn serving(gibbon: &Gibbon) -> BTreeSet<String> {
    (0..8).map(|_| gibbon.get(HOST, "/").text()).collect()
}

fn serves(gibbon: &Gibbon, names: &[&str]) {
    let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    eventually(|| (serving(gibbon) == names).then_some(()));
}

/// How many checks of a member had this result.
fn count(gibbon: &Gibbon, member: &Member, result: &str) -> f64 {
    count_of(gibbon, &member.address.to_string(), result)
}

/// The same, of one with this name or address.
fn count_of(gibbon: &Gibbon, member: &str, result: &str) -> f64 {
    let (member, result) = (format!("\"{member}\""), format!("\"{result}\""));
    let text = gibbon.page("/metrics").text();
    let line = text.lines().find(|line| {
        line.starts_with("gibbon_member_health_checks_total")
            && line.contains(&member)
            && line.contains(&result)
    });
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_member_that_fails_its_checks_gets_nothing_until_it_passes() {
    let (one, two) = (Member::new(ok("")), Member::new(ok("")));
    play(&one, "one", "200 OK");
    play(&two, "two", "204 No Content");
    let members = [member(one.address, "route: a"), member(two.address, "route: b")];
    let sticky = "sticky: {cookie: s}\nbalancing: {method: RoundRobin}";
    let gibbon = Gibbon::start(&balancer(&members, &format!("{CHECK}\n{sticky}")));
    serves(&gibbon, &["one", "two"]);
    play(&one, "one", "500 Oops");
    serves(&gibbon, &["two"]);
    assert_eq!(gibbon.table()["balancers"][0]["members"][0]["condition"], "failing");
    assert_eq!(gibbon.ask("GET", HOST, "/", &[("Cookie", "s=a")]).text(), "two");
    assert!(count(&gibbon, &one, "failed") >= 2.0 && count(&gibbon, &two, "failed") < 1.0);
    play(&one, "one", "302 Found");
    serves(&gibbon, &["one", "two"]);
    assert_eq!(gibbon.ask("GET", HOST, "/", &[("Cookie", "s=a")]).text(), "one");
    let all = two.received();
    let check = all.iter().find(|request| request.target() != "/").unwrap();
    assert_eq!(check.line, "GET /health?deep=1 HTTP/1.1");
    assert_eq!(check.header("host"), Some(&*two.address.to_string()));
    assert_eq!(check.header("user-agent"), Some("gibbon-health-check"));
}

#[test]
fn a_connection_serves_many_checks() {
    let one = Member::new(ok(""));
    play(&one, "one", "200 OK");
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], CHECK));
    eventually(|| (checks(&one) >= 10).then_some(()));
    assert_eq!(one.connections.load(SeqCst), 1);
    assert!(count(&gibbon, &one, "passed") >= 9.0);
    // One that the member closes meanwhile is no failure.
    one.act(Act::WriteAndClose(response("200 OK", &[], "x")));
    one.forget();
    eventually(|| (checks(&one) >= 5).then_some(()));
    assert!(count(&gibbon, &one, "failed") < 1.0);
}

#[test]
fn a_connection_is_enough_if_asked_so_and_a_refused_one_is_a_failure() {
    let (mut one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let members = [member(one.address, ""), member(two.address, "")];
    let check = "healthCheck: {type: Tcp, interval: 50ms, failureThreshold: 1}";
    let gibbon = Gibbon::start(&balancer(&members, check));
    serves(&gibbon, &["one", "two"]);
    one.stop();
    eventually(|| {
        let table = gibbon.table();
        (table["balancers"][0]["members"][0]["condition"] == "failing").then_some(())
    });
    let asked = two.count();
    assert_eq!(serving(&gibbon), ["two".to_owned()].into());
    assert_eq!(two.count(), asked + 8);
    let counted = "gibbon_members{namespace=\"site\",balancer=\"app\",state=\"failing\"}";
    assert_eq!(gibbon.metric(counted), Some(1.0));
    one.start();
    serves(&gibbon, &["one", "two"]);
}

#[test]
fn a_check_that_takes_too_long_is_a_failure() {
    let (one, two) = (Member::new(Act::Silence), Member::new(ok("two")));
    let members = [member(one.address, ""), member(two.address, "")];
    let check = "healthCheck: {interval: 50ms, timeout: 50ms, failureThreshold: 1}";
    let gibbon = Gibbon::start(&balancer(&members, check));
    eventually(|| {
        let table = gibbon.table();
        (table["balancers"][0]["members"][0]["condition"] == "failing").then_some(())
    });
    assert_eq!(serving(&gibbon), ["two".to_owned()].into());
}

#[test]
fn when_all_fail_they_are_tried() {
    let (one, two) = (Member::new(ok("")), Member::new(ok("")));
    play(&one, "one", "500 Oops");
    play(&two, "two", "500 Oops");
    let members = [member(one.address, ""), member(two.address, "")];
    let gibbon = Gibbon::start(&balancer(&members, CHECK));
    let failing = "gibbon_members{namespace=\"site\",balancer=\"app\",state=\"failing\"}";
    eventually(|| (gibbon.metric(failing) == Some(2.0)).then_some(()));
    serves(&gibbon, &["one", "two"]);
}

#[test]
fn a_new_member_serves_after_it_has_passed_and_others_keep_what_is_known_of_them() {
    let (one, two) = (Member::new(ok("")), Member::new(ok("")));
    play(&one, "one", "200 OK");
    play(&two, "two", "503 Not yet");
    let check = CHECK
        .replace('}', ", passFirst: true, method: OPTIONS}")
        .replace("path: '/health?deep=1', ", "");
    let first = [member(one.address, "")];
    let gibbon = Gibbon::start(&balancer(&first, &check));
    serves(&gibbon, &["one"]);
    eventually(|| (count(&gibbon, &one, "passed") >= 2.0).then_some(()));
    let passed = count(&gibbon, &one, "passed");
    let both = [member(one.address, ""), member(two.address, "")];
    gibbon.write("balancers.yaml", &balancer(&both, &check));
    eventually(|| (checks(&two) >= 3).then_some(()));
    assert_eq!(serving(&gibbon), ["one".to_owned()].into());
    assert!(count(&gibbon, &one, "passed") >= passed);
    assert!(two.received().iter().all(|request| request.line == "OPTIONS * HTTP/1.1"));
    play(&two, "two", "200 OK");
    serves(&gibbon, &["one", "two"]);
    // Who is not a member any more is not asked any more.
    gibbon.write("balancers.yaml", &balancer(&first, &check));
    eventually(|| (gibbon.table()["balancers"][0]["members"][1].is_null()).then_some(()));
    eventually(|| {
        two.forget();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (two.count() == 0).then_some(())
    });
}

#[test]
fn members_of_http_2_are_asked_by_it_and_on_one_connection() {
    let app = FrameMember::new(max_streams(10), |_, frame, writer| {
        if frame.ends() {
            let _ = writer.lock().unwrap().write_all(&answer(frame.stream, "checked"));
        }
    });
    let old = Member::new(ok("old"));
    let members = [
        member(app.address, "protocol: H2C, name: new"),
        member(old.address, "protocol: H2C, name: old"),
    ];
    let gibbon = Gibbon::start(&balancer(&members, CHECK));
    let counts = |name: &str, result: &str| count_of(&gibbon, name, result);
    eventually(|| (counts("new", "passed") > 9.0 && counts("old", "failed") > 2.0).then_some(()));
    assert_eq!(app.count(), 1);
    assert!(counts("new", "failed") < 1.0 && counts("old", "passed") < 1.0);
    assert_eq!(gibbon.get(HOST, "/").text(), "checked");
}
