//! What clients get with errors: pages of the rule for Gibbon's own and for members'.

mod support;

use support::{Act, Gibbon, Member, balancer, eventually, member, ok, response};

const HOST: &str = "www.site.com";
const PAGES: &str = "errorPages:\n  - {statuses: ['503'], body: '<h1>Soon</h1>'}\n  \
    - {statuses: ['404', '500-599'], overrideMembers: true, body: '{\"a\": 1}', contentType: application/json}\n  \
    - {statuses: ['401-429'], overrideMembers: true}";

fn answering(status: &str) -> Member {
    let headers = [
        ("Set-Cookie", "a=b"),
        ("Location", "http://inside/"),
        ("X-Inside", "yes"),
        ("Content-Encoding", "gzip"),
        ("WWW-Authenticate", "Basic realm=x"),
        ("Retry-After", "7"),
    ];
    Member::new(Act::Write(response(status, &headers, "inside")))
}

#[test]
fn errors_of_gibbon_itself_have_the_rules_page() {
    let closing = Member::new(Act::WriteAndClose(Vec::new()));
    let gibbon = Gibbon::start(&balancer(&[member(closing.address, "")], PAGES));
    let seen = gibbon.get(HOST, "/");
    assert_eq!((seen.status, seen.text().as_str()), (502, "{\"a\": 1}"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("cache-control"), Some("no-store"));
    let head = gibbon.ask("HEAD", HOST, "/", &[]);
    assert_eq!((head.status, head.header("content-length")), (502, Some("8")));
    // A host that nobody serves has no rule.
    assert_eq!(gibbon.get("other.site.com", "/").text(), "Not Found: no site has this name\n");
    let more = format!("refuse: {{status: 503}}\n{PAGES}");
    let gibbon = Gibbon::start(&balancer(&[], &more));
    let seen = gibbon.get(HOST, "/");
    assert_eq!((seen.status, seen.text().as_str()), (503, "<h1>Soon</h1>"));
    assert_eq!(seen.header("content-type"), Some("text/html; charset=utf-8"));
}

#[test]
fn what_members_answer_is_replaced_where_the_rule_says_so() {
    for (status, body, kind) in [
        ("404 Not Found", "{\"a\": 1}", "application/json"),
        ("500 Oops", "{\"a\": 1}", "application/json"),
        (
            "401 Unauthorized",
            "Unauthorized: the server does not answer this request\n",
            "text/plain; charset=utf-8",
        ),
    ] {
        let inside = answering(status);
        let gibbon = Gibbon::start(&balancer(&[member(inside.address, "")], PAGES));
        let mut client = gibbon.client();
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
            let seen = client.read().unwrap();
            assert_eq!((seen.status, seen.text().as_str()), (status[..3].parse().unwrap(), body));
            assert_eq!(seen.header("content-type"), Some(kind));
            for name in ["set-cookie", "location", "x-inside", "content-encoding"] {
                assert_eq!(seen.header(name), None, "{name}");
            }
            assert_eq!(seen.header("www-authenticate"), Some("Basic realm=x"));
            assert_eq!(seen.header("retry-after"), Some("7"));
            assert!(seen.header("x-request-id").is_some());
        }
        let line = "gibbon_member_in_flight{namespace=\"site\",balancer=\"app\"";
        let page = gibbon.page("/metrics").text();
        assert!(page.lines().any(|l| l.starts_with(line) && l.ends_with(" 0")), "{page}");
    }
}

#[test]
fn what_members_answer_is_passed_on_where_the_rule_says_nothing() {
    for (status, more) in [("503 Busy", PAGES), ("418 Teapot", PAGES), ("404 Not Found", "")] {
        let more = more.replace("'401-429'", "'402-417'");
        let inside = answering(status);
        let gibbon = Gibbon::start(&balancer(&[member(inside.address, "")], &more));
        let seen = gibbon.get(HOST, "/");
        assert_eq!((seen.text().as_str(), seen.header("x-inside")), ("inside", Some("yes")));
    }
    let well = Member::new(ok("x"));
    let gibbon = Gibbon::start(&balancer(&[member(well.address, "")], PAGES));
    assert_eq!(gibbon.get(HOST, "/").text(), "x");
}

#[test]
fn a_member_whose_answer_is_replaced_keeps_its_connection_unless_that_is_long() {
    let site = |length: usize| {
        let inside = Member::new(Act::Write(response("404 Not Found", &[], &"x".repeat(length))));
        let gibbon = Gibbon::start(&balancer(&[member(inside.address, "")], PAGES));
        (inside, gibbon)
    };
    let connections = |gibbon: &Gibbon| {
        let series = "gibbon_member_connections_total{namespace=\"site\",balancer=\"app\"";
        let page = gibbon.page("/metrics").text();
        let line =
            page.lines().find(|line| line.starts_with(series)).unwrap_or_default().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (inside, gibbon) = site(1000);
    // A connection is kept a moment after the client has its answer.
    eventually(|| {
        assert_eq!(gibbon.get(HOST, "/").status, 404);
        (connections(&gibbon) < inside.count() as f64).then_some(())
    });
    let (_inside, gibbon) = site(1_000_000);
    for _ in 0..4 {
        assert_eq!(gibbon.get(HOST, "/").status, 404);
    }
    assert!(connections(&gibbon) >= 4.0);
}

#[test]
fn clients_get_errors_in_the_form_that_they_ask_for_whatever_members_are_told() {
    let inside = answering("401 Unauthorized");
    let more =
        format!("headers: {{request: {{set: [{{name: Accept, value: text/html}}]}}}}\n{PAGES}");
    let gibbon = Gibbon::start(&balancer(&[member(inside.address, "")], &more));
    let json = [("Accept", "application/json")];
    let replaced = gibbon.ask("GET", HOST, "/", &json);
    assert_eq!(replaced.header("content-type"), Some("application/json"));
    assert_eq!(inside.received()[0].header("accept"), Some("text/html"));
    let more = "headers: {request: {set: [{name: Accept, value: application/json}]}}";
    let gibbon = Gibbon::start(&balancer(&[member(Member::dead(), "")], more));
    let own = gibbon.ask("GET", HOST, "/", &[("Accept", "text/html")]);
    assert_eq!((own.status, own.header("content-type")), (503, Some("text/plain; charset=utf-8")));
    let own = gibbon.ask("GET", HOST, "/", &json);
    assert_eq!(own.header("content-type"), Some("application/json"));
}
