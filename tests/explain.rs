//! Why a request went where it went: ids, what is kept of requests, and what is told of those that
//! are only described.

mod support;

use std::process::{Command, Output};

use gibbon::proxy::Settings;
use gibbon::proxy::trace::NewTraces;
use serde_json::{Value, json};
use support::{
    Act, Gibbon, Member, Options, Seen, balancer, eventually, member, named, ok, response,
};

const HOST: &str = "www.site.com";
const STICKY: &str = "sticky: {cookie: sessionid, parameter: sid, routeRegex: '!(.*)$'}";

fn with(yaml: &str, change: impl FnOnce(&mut Settings)) -> Gibbon {
    let mut options = Options::default();
    change(&mut options.settings);
    Gibbon::with(yaml, options)
}

/// One that keeps all requests.
fn keeping_all(yaml: &str) -> Gibbon {
    with(yaml, |settings| settings.explain_sample = 1)
}

/// Two members with the routes app1 and app2.
fn pair(one: std::net::SocketAddr, two: std::net::SocketAddr, more: &str) -> String {
    let members = [member(one, "name: app1, route: app1"), member(two, "name: app2, route: app2")];
    balancer(&members, more)
}

fn id(seen: &Seen) -> String {
    assert_eq!(seen.all("x-request-id").len(), 1);
    seen.header("x-request-id").unwrap().to_owned()
}

/// What is kept of a request; the end of it may come a little after its answer.
fn kept(gibbon: &Gibbon, id: &str) -> Value {
    let page = eventually(|| {
        let page = gibbon.page(&format!("/explain/{id}?json"));
        (page.status == 200).then_some(page)
    });
    let mut all: Value = serde_json::from_slice(&page.body).unwrap();
    all["requests"][0].take()
}

fn described(gibbon: &Gibbon, flags: &[&str]) -> Output {
    let admin = gibbon.admin.to_string();
    let command = Command::new(env!("CARGO_BIN_EXE_gibbon"))
        .args(["explain", "--admin", &admin])
        .args(flags)
        .output();
    command.unwrap()
}

fn told(gibbon: &Gibbon, flags: &[&str]) -> Value {
    let output = described(gibbon, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_request_has_one_id_for_client_and_member() {
    let app = Member::new(Act::Write(response("200 OK", &[("X-Request-Id", "the-members")], "x")));
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    let seen = gibbon.ask("GET", HOST, "/", &[("X-Request-Id", "4bf9-2/a=")]);
    assert_eq!(id(&seen), "4bf9-2/a=");
    assert_eq!(app.received()[0].all("x-request-id"), ["4bf9-2/a="]);
    let made: Vec<_> = (0..2).map(|_| id(&gibbon.get(HOST, "/"))).collect();
    assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    assert_ne!(made[0], made[1]);
    assert_eq!(app.received()[1].all("x-request-id"), [&*made[0]]);
}

#[test]
fn an_id_that_could_forge_something_is_replaced() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    let long = "a".repeat(129);
    for wrong in ["a b", "a\"b", "a;b", "<script>", &long] {
        let fields = [("X-Request-Id", wrong), ("X_Request_Id", "forged")];
        let seen = gibbon.ask("GET", HOST, "/", &fields);
        assert_eq!(id(&seen).len(), 32, "{wrong}");
        let received = app.received().pop().unwrap();
        assert_eq!(received.all("x-request-id"), [id(&seen)]);
        assert_eq!(received.header("x_request_id"), None);
    }
    let seen = gibbon.ask("GET", HOST, "/", &[("X-Request-Id", "a"), ("X-Request-Id", "b")]);
    assert_eq!(id(&seen).len(), 32);
    let fields = [("Connection", "x-request-id, traceparent"), ("X-Request-Id", "a")];
    gibbon.ask("GET", HOST, "/", &fields);
    assert_eq!(app.received().pop().unwrap().header("x-request-id"), Some("a"));
}

#[test]
fn gibbons_own_answers_have_the_id_too() {
    let refused = named("refused", "/no/", &[], "refuse: {}");
    let moved = named("moved", "/old/", &[], "redirect: {to: /new/}");
    let dead = balancer(&[member(Member::dead(), "")], "");
    let gibbon = Gibbon::start(&format!("{dead}---\n{refused}---\n{moved}"));
    for (host, path, status) in
        [("other.org", "/", 404), (HOST, "/no/", 404), (HOST, "/old/", 308), (HOST, "/", 503)]
    {
        let seen = gibbon.ask("GET", host, path, &[("X-Request-Id", "mine")]);
        assert_eq!((seen.status, id(&seen)), (status, "mine".to_owned()), "{path}");
    }
}

#[test]
fn a_call_of_grpc_is_explained_with_its_status() {
    let kind = ("Content-Type", "application/grpc");
    let answer = |status| response("200 OK", &[kind, ("grpc-status", status)], "");
    let app = Member::new(Act::Write(answer("5")));
    let gibbon = keeping_all(&balancer(&[member(app.address, "")], ""));
    let call = |host| gibbon.ask("POST", host, "/a.B/C", &[kind, ("Content-Length", "0")]);
    let seen = call(HOST);
    assert_eq!(kept(&gibbon, &id(&seen))["answer"]["grpcStatus"], 5);
    let page = gibbon.page(&format!("/explain/{}", id(&seen))).text();
    assert!(page.contains("answered 200 (grpc-status 5) by 127.0.0.1"), "{page}");
    // What Gibbon refuses, too; and what is no call has none.
    assert_eq!(kept(&gibbon, &id(&call("other.org")))["answer"]["grpcStatus"], 12);
    let seen = gibbon.get("other.org", "/");
    assert_eq!(kept(&gibbon, &id(&seen))["answer"]["grpcStatus"], json!(null));
}

#[test]
fn a_trace_is_passed_on_and_begun_only_if_asked() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let app = Member::new(ok("x"));
    let yaml = balancer(&[member(app.address, "")], "");
    for (new, flags) in [(NewTraces::None, None), (NewTraces::Sampled, Some("01"))] {
        let gibbon = with(&yaml, |settings| settings.new_traces = new);
        app.forget();
        gibbon.ask("GET", HOST, "/", &[("traceparent", PARENT), ("tracestate", "a=b")]);
        gibbon.get(HOST, "/");
        gibbon.ask("GET", HOST, "/", &[("traceparent", "nonsense"), ("tracestate", "a=b")]);
        let received = app.received();
        assert_eq!(received[0].all("traceparent"), [PARENT]);
        assert_eq!(received[0].all("tracestate"), ["a=b"]);
        let Some(flags) = flags else {
            assert_eq!(received[1].header("traceparent"), None);
            assert_eq!(received[2].all("traceparent"), ["nonsense"]);
            continue;
        };
        for received in &received[1..] {
            let id = received.header("x-request-id").unwrap();
            let parent = received.header("traceparent").unwrap();
            assert!(parent.starts_with(&format!("00-{id}-")) && parent.ends_with(flags));
            assert_eq!((parent.len(), received.header("tracestate")), (55, None));
        }
    }
}

#[test]
fn a_request_that_was_retried_is_found_by_its_id_with_its_attempts() {
    let good = Member::new(Act::After(std::time::Duration::from_millis(20), Box::new(ok("good"))));
    let gibbon = Gibbon::start(&pair(Member::dead(), good.address, STICKY));
    let cookie = ("Cookie", "sessionid=x!app1");
    let seen = gibbon.ask("GET", HOST, "/cart", &[("X-Request-Id", "retried-1"), cookie]);
    assert_eq!((seen.status, id(&seen)), (200, "retried-1".to_owned()));
    let kept = kept(&gibbon, "retried-1");
    assert_eq!(kept["because"], json!(["retried", "excluded"]));
    assert_eq!(kept["matched"], json!({"balancer": "site/app", "host": HOST, "path": "/"}));
    assert_eq!(kept["session"]["result"], "failover");
    assert_eq!(kept["session"]["found"][0]["route"], "app1");
    assert_eq!(kept["session"]["found"][0]["members"], json!(["app1"]));
    let attempts = kept["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(
        (&attempts[0]["member"], &attempts[0]["failure"]),
        (&json!("app1"), &json!("refused"))
    );
    assert_eq!(attempts[0]["excludedForSeconds"], 5.0);
    assert_eq!((&attempts[1]["member"], &attempts[1]["status"]), (&json!("app2"), &json!(200)));
    let (at, took) = (attempts[1]["atSeconds"].as_f64(), attempts[1]["seconds"].as_f64());
    assert!(at >= attempts[0]["seconds"].as_f64() && took >= Some(0.02), "{attempts:?}");
    let standings: Vec<_> =
        kept["members"].as_array().unwrap().iter().map(|m| m["standing"].clone()).collect();
    assert_eq!(standings, ["tried", "usable"]);
    assert_eq!(
        (&kept["answer"]["status"], &kept["answer"]["member"]),
        (&json!(200), &json!("app2"))
    );
    assert_eq!(kept["answer"]["attempts"], 2);
}

#[test]
fn a_request_that_failed_is_found_by_its_id() {
    let gibbon = Gibbon::start(&pair(Member::dead(), Member::dead(), ""));
    let seen = gibbon.get(HOST, "/");
    assert_eq!(seen.status, 503);
    let failed = kept(&gibbon, &id(&seen));
    assert!(failed["because"].as_array().unwrap().contains(&json!("failed")), "{failed}");
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(failed["answer"]["reason"], "no_member");
    let list = gibbon.page("/explain").text();
    assert!(list.contains(&id(&seen)) && list.contains(" 503 site/app GET http://www.site.com/"));
    // What went well is not kept, unless it was drawn.
    let app = Member::new(ok("x"));
    let quiet = with(&balancer(&[member(app.address, "")], ""), |s| s.explain_sample = 0);
    let seen = quiet.get(HOST, "/");
    quiet.get("other.org", "/");
    assert_eq!(quiet.page(&format!("/explain/{}", id(&seen))).status, 404);
    assert_eq!(quiet.page("/explain").text(), "");
}

#[test]
fn an_answer_that_takes_a_member_out_or_breaks_off_is_kept() {
    let busy = Member::new(Act::Write(response("503 Busy", &[], "")));
    let good = Member::new(ok("x"));
    let more = format!("{STICKY}\nfailover: {{statuses: [503]}}");
    let gibbon = Gibbon::start(&pair(busy.address, good.address, &more));
    let seen = gibbon.ask("GET", HOST, "/", &[("Cookie", "sessionid=x!app1")]);
    let excluded = kept(&gibbon, &id(&seen));
    assert_eq!(excluded["because"], json!(["excluded"]));
    assert_eq!(excluded["attempts"][0]["status"], 503);
    assert_eq!(excluded["attempts"][0]["excludedForSeconds"], 5.0);
    let standings = excluded["members"].as_array().unwrap().iter().map(|m| m["standing"].clone());
    assert_eq!(standings.collect::<Vec<_>>(), ["excluded", "usable"]);
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec();
    let short = Member::new(Act::WriteAndClose(short));
    let gibbon = Gibbon::start(&balancer(&[member(short.address, "")], ""));
    let cut = kept(&gibbon, &id(&gibbon.get(HOST, "/")));
    assert!(cut["because"].as_array().unwrap().contains(&json!("cut")), "{cut}");
    assert_eq!((&cut["answer"]["cut"], &cut["answer"]["reason"]), (&json!(true), &json!("reset")));
    assert_eq!(cut["matched"]["balancer"], "site/app");
}

#[test]
fn no_cookie_credential_or_value_of_a_query_is_ever_shown() {
    let fields = [
        ("Location", "http://app.internal/login?next=SECRET#SECRET"),
        ("Set-Cookie", "sessionid=SECRET!app1; Domain=app.internal; Path=/"),
        ("X-Token", "SECRET"),
    ];
    let app = Member::new(Act::Write(response("302 Found", &fields, "SECRET")));
    let options = Options::default().name("app.internal", 80, app.address);
    let mut options = Options { settings: Settings { workers: 1, ..options.settings }, ..options };
    options.settings.explain_sample = 1;
    let yaml = balancer(
        &["url: 'http://app.internal/', name: app1, route: app1".to_owned()],
        &format!("{STICKY}\nheaders: {{request: {{set: [{{name: X-Key, value: SECRET}}]}}}}"),
    );
    let gibbon = Gibbon::with(&yaml, options);
    for session in ["SECRET!app1", "SECRET!SECRET", "SECRET"] {
        let cookie = format!("sessionid={session}; SECRET");
        let fields = [
            ("Cookie", &*cookie),
            ("Authorization", "Bearer SECRET"),
            ("Proxy-Authorization", "SECRET"),
            ("X-Api-Key", "SECRET"),
            ("Referer", "http://www.site.com/?q=SECRET"),
        ];
        let path = format!("/shop;sid={session}/cart?token=SECRET&sid={session}&SECRET");
        let seen = gibbon.ask("GET", HOST, &path, &fields);
        assert_eq!(seen.status, 302);
        let kept = kept(&gibbon, &id(&seen));
        let page = gibbon.page(&format!("/explain/{}", id(&seen))).text();
        let list = gibbon.page("/explain").text() + &gibbon.page("/explain?json").text();
        for text in [&kept.to_string(), &page, &list] {
            assert!(!text.contains("SECRET"), "{text}");
        }
        let path = "/shop;sid=***/cart?token=***&sid=***&***";
        assert_eq!(kept["request"]["path"], path);
        assert!(page.contains("cookie: sessionid=***; ***\n"), "{page}");
        assert!(page.contains("authorization: Bearer ***\n"), "{page}");
        let location =
            "location: http://app.internal/login?next=*** -> http://www.site.com/login?next=***";
        assert!(page.contains(location), "{page}");
        let cookie = "set-cookie: sessionid=***; Domain=app.internal; Path=/ -> sessionid=***; ";
        assert!(page.contains(cookie), "{page}");
    }
}

#[test]
fn a_described_request_and_a_real_one_agree() {
    let [a, b] = [(); 2].map(|()| Member::new(ok("x")));
    let media = named("media", "/media/", &[member(b.address, "name: media")], "");
    let twin = named("twin", "/media/", &[member(b.address, "")], "");
    let strict = format!("{}, failover: false}}", STICKY.trim_end_matches('}'));
    let app = pair(a.address, b.address, STICKY);
    let old = named("old", "/old", &[member(Member::dead(), "route: gone")], &strict);
    let gibbon = keeping_all(&format!("{app}---\n{media}---\n{twin}---\n{old}"));
    for (path, cookie) in [
        ("/", "none=1"),
        ("/cart?x=1", "sessionid=x!app2"),
        ("/cart;sid=1!app1", "sessionid=x!app2"),
        ("/a/../b", "sessionid=x!gone"),
        ("/media/a.png", "sessionid=x!app1"),
        ("/old", "sessionid=x!nobody"),
        ("/%6Dedia/", ""),
    ] {
        let seen = gibbon.ask("GET", HOST, path, &[("Cookie", cookie)]);
        let real = kept(&gibbon, &id(&seen));
        let (url, field) = (format!("http://{HOST}{path}"), format!("Cookie: {cookie}"));
        let flags = ["--url", &url, "--header", &field, "--format", "json"];
        let dry = told(&gibbon, &flags);
        for part in ["matched", "others"] {
            assert_eq!(dry[part], real[part], "{path} {cookie}");
        }
        assert_eq!(dry["session"]["result"], real["session"]["result"], "{path} {cookie}");
        let found = |e: &Value| {
            e["session"]["found"]
                .as_array()
                .map(|found| found.iter().map(|f| f["members"].clone()).collect::<Vec<_>>())
        };
        assert_eq!(found(&dry), found(&real));
        if real["session"]["result"] == "hit" {
            assert_eq!(dry["pick"]["member"], real["answer"]["member"]);
        }
        let changed = |e: &Value| {
            e["rewritten"].as_array().map(|changes| {
                let request = changes.iter().filter(|change| change["in"] == "request");
                request.cloned().collect::<Vec<_>>()
            })
        };
        if dry["pick"]["member"] == real["answer"]["member"] {
            assert_eq!(changed(&dry), changed(&real));
        }
    }
}

#[test]
fn what_is_answered_without_a_member_is_told() {
    let refused = named("refused", "/no", &[], "refuse: {status: 410}");
    let moved = named("moved", "/old/", &[], "redirect: {to: /new/}");
    let app = Member::new(ok("x"));
    let open = balancer(&[member(app.address, "")], "access: {deny: [192.0.2.0/24]}");
    let gibbon = Gibbon::start(&format!("{open}---\n{refused}---\n{moved}"));
    for (flags, instead) in [
        (&["--url", "http://www.site.com/no"][..], json!("410: spec.refuse")),
        (&["--url", "http://www.site.com/old/"], json!("308: redirect to /new/")),
        (
            &["--url", "http://www.site.com/", "--client", "192.0.2.7"],
            json!("403: spec.access shuts 192.0.2.7 out"),
        ),
        (&["--url", "http://other.org/"], json!("404: no Balancer has this host")),
        (&["--url", "http://other.org/", "-H", "Host: www.site.com"], Value::Null),
    ] {
        let flags = [flags, &["--format", "json"]].concat();
        assert_eq!(told(&gibbon, &flags)["instead"], instead, "{flags:?}");
    }
    for (flags, message) in [
        (
            &["--url", "www.site.com"][..],
            "url: `www.site.com` should look like http://www.site.com/",
        ),
        (&["--url", "http://a/", "--header", "x"], "header: `x` should look like `Cookie: "),
        (&["--id", "nobody"], "no request with this id is kept"),
    ] {
        let output = described(&gibbon, flags);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(message), "{error}");
    }
}

/// What is told of a described request of a session, as it would be picked now.
fn why(gibbon: &Gibbon, flags: &[&str]) -> String {
    let flags = [&["--format", "json", "--url", "http://www.site.com/"], flags].concat();
    told(gibbon, &flags)["pick"]["why"].as_str().unwrap().to_owned()
}

#[test]
fn why_a_member_is_picked_is_told_as_it_is() {
    let (ill, well) = (Member::new(ok("")), Member::new(ok("well")));
    ill.act_with(|request| {
        let status = if request.target() == "/h" { "500 Oops" } else { "200 OK" };
        Act::Write(response(status, &[], "ill"))
    });
    let check = "healthCheck: {path: /h, interval: 50ms, failureThreshold: 1}";
    let one = format!("{}, route: ill", member(ill.address, ""));
    let gibbon =
        Gibbon::start(&balancer(std::slice::from_ref(&one), &format!("{STICKY}\n{check}")));
    let failing = "gibbon_members{namespace=\"site\",balancer=\"app\",state=\"failing\"}";
    eventually(|| (gibbon.metric(failing) == Some(1.0)).then_some(()));
    assert_eq!(why(&gibbon, &[]), "none is usable: it is tried rather than nobody");
    let own = ["-H", "Cookie: sessionid=x!ill"];
    assert!(why(&gibbon, &own).contains("nobody is better: it is tried though"));
    // Where sessions are left to another.
    let members = [
        member(Member::dead(), "name: gone, route: gone, state: Disabled, failoverRoute: well"),
        member(ill.address, "name: other"),
        member(well.address, "name: well, route: well"),
    ];
    let gibbon = Gibbon::start(&balancer(&members, STICKY));
    let left = why(&gibbon, &["-H", "Cookie: sessionid=x!gone"]);
    assert!(left.ends_with("leaves its sessions to this one (failoverRoute)"), "{left}");
    assert_eq!(gibbon.ask("GET", HOST, "/", &[("Cookie", "sessionid=x!gone")]).text(), "well");
}

#[test]
fn a_described_upgrade_passes_members_over_that_cannot_take_it() {
    let socket = Member::new(ok("x"));
    let [h2c, http1] = [
        "url: 'http://127.0.0.1:1/', name: h2c, protocol: H2C, route: h2c".to_owned(),
        member(socket.address, "name: http1"),
    ];
    let asks = ["-H", "Connection: keep-alive, Upgrade", "-H", "Upgrade: websocket"];
    let gibbon = Gibbon::start(&balancer(std::slice::from_ref(&h2c), ""));
    let real = gibbon.ask("GET", HOST, "/", &[("Connection", "upgrade"), ("Upgrade", "websocket")]);
    assert_eq!(real.status, 501);
    assert!(why(&gibbon, &asks).starts_with("501: "));
    // Without both fields it is a request like others, and HTTP is not left for HTTP.
    assert!(!why(&gibbon, &asks[2..]).starts_with("501: "));
    let http = ["-H", "Connection: upgrade", "-H", "Upgrade: h2c"];
    assert!(!why(&gibbon, &http).starts_with("501: "));
    let gibbon = Gibbon::start(&balancer(&[h2c, http1], STICKY));
    let session = [&asks[..], &["-H", "Cookie: sessionid=x!h2c", "--format", "json"]].concat();
    let told = told(&gibbon, &[&["--url", "http://www.site.com/"], &session[..]].concat());
    assert_eq!(
        (&told["pick"]["member"], &told["session"]["result"]),
        (&json!("http1"), &json!("failover"))
    );
}

#[test]
fn what_tls_decides_is_told_as_far_as_it_is_known() {
    let authority = support::authority::Authority::new();
    let (secret, ca) =
        (support::secret("www", HOST), support::ca_secret("ca", &authority.certificate.pem()));
    let app = Member::new(ok("x"));
    let tls = |more: &str| {
        let tls = format!("tls: {{secretName: www, clientCASecret: ca, redirect: false{more}}}");
        let rule = balancer(&[member(app.address, "")], &tls);
        Gibbon::start(&format!("{secret}---\n{ca}---\n{rule}"))
    };
    let tell = |gibbon: &Gibbon, url: &str| told(gibbon, &["--format", "json", "--url", url]);
    let gibbon = tls("");
    assert_eq!(gibbon.get(HOST, "/").status, 403);
    let plain = tell(&gibbon, "http://www.site.com/");
    assert_eq!(
        plain["instead"],
        "403: spec.tls.clientCASecret of the host wants a certificate: by TLS"
    );
    let secure = tell(&gibbon, "https://www.site.com/");
    assert_eq!(secure["instead"], Value::Null);
    let unknown = secure["unknown"][0].as_str().unwrap();
    assert!(
        unknown.starts_with("whether the client shows the certificate") && unknown.contains("421")
    );
    let page = gibbon.page("/explain?url=https://www.site.com/").text();
    assert!(page.contains("  not known here: whether the client shows the certificate"), "{page}");
    let optional = tell(&tls(", clientCertificate: Optional"), "https://www.site.com/");
    assert!(
        optional["unknown"][0].as_str().unwrap().contains("shows a certificate;"),
        "{optional}"
    );
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    assert_eq!(tell(&gibbon, "http://www.site.com/")["unknown"], json!([]));
    let secure = tell(&gibbon, "https://www.site.com/");
    assert!(
        secure["unknown"][0].as_str().unwrap().contains("no certificate for the host"),
        "{secure}"
    );
}

#[test]
fn an_answer_that_its_member_broke_off_is_not_gibbons_own() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx";
    let app = Member::new(Act::WriteAndClose(head.into()));
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "name: app")], ""));
    let mut client = gibbon.client();
    client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\nX-Request-Id: cut\r\n\r\n");
    client.rest();
    kept(&gibbon, "cut");
    let page = gibbon.page("/explain/cut").text();
    let line = page.lines().find(|line| line.starts_with("answered ")).unwrap();
    let by = format!("answered 200 by app {}, 1 bytes of body in ", app.address);
    assert!(line.starts_with(&by) && line.ends_with("; it was cut off: reset"), "{line}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let [a, b] = [(); 2].map(|()| Member::new(ok("x")));
    let more = format!("{STICKY}\nbalancing: {{method: RoundRobin}}");
    let gibbon = Gibbon::start(&pair(a.address, b.address, &more));
    let served = || (a.count(), b.count());
    gibbon.get(HOST, "/");
    gibbon.get(HOST, "/");
    assert_eq!(served(), (1, 1));
    let before = gibbon.table();
    for cookie in ["", "sessionid=x!app1", "sessionid=x!app1"] {
        for _ in 0..5 {
            let page = gibbon.page(&format!("/explain?url=http://{HOST}/&header=Cookie:{cookie}"));
            assert_eq!(page.status, 200, "{}", page.text());
        }
    }
    assert_eq!(gibbon.table(), before);
    // Who would be picked is who is picked, in turn.
    for turn in 2..6 {
        let page = gibbon.page(&format!("/explain?json&url=http://{HOST}/"));
        let dry: Value = serde_json::from_slice(&page.body).unwrap();
        let then = if dry["pick"]["member"] == "app1" { &a } else { &b };
        let count = then.count();
        gibbon.get(HOST, "/");
        assert_eq!(then.count(), count + 1, "turn {turn}");
    }
    assert_eq!(served(), (3, 3));
    let answered = "gibbon_requests_total{namespace=\"site\",balancer=\"app\",code=\"2xx\"}";
    assert_eq!(gibbon.metric(answered), Some(6.0));
}

#[test]
fn ten_thousand_failures_leave_as_many_as_are_kept() {
    // A port that is not given to anybody else while this runs.
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let gibbon = with(&balancer(&[member(nobody, "")], ""), |s| s.explain_keep = 50);
    let mut client = gibbon.client();
    for number in 0..10_000 {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Request-Id: failure-{number}\r\n\r\n");
        assert_eq!(client.send(request).read().unwrap().status, 503);
    }
    let list = eventually(|| {
        let list = gibbon.page("/explain").text();
        list.contains("failure-9999 ").then_some(list)
    });
    assert_eq!(list.lines().count(), 50);
    assert!(list.contains("failure-9950 ") && !list.contains("failure-9949 "));
    assert_eq!(gibbon.page("/explain/failure-0").status, 404);
}

#[test]
fn files_are_enough_to_describe_a_request() {
    let directory = std::env::temp_dir().join(format!("gibbon-explain-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("b.yaml");
    let run = |yaml: &str| {
        std::fs::write(&file, yaml).unwrap();
        Command::new(env!("CARGO_BIN_EXE_gibbon"))
            .args(["explain", "--files", directory.to_str().unwrap()])
            .args(["--url", "http://www.site.com/cart?x=1", "-H", "Cookie: sessionid=x!app2"])
            .output()
            .unwrap()
    };
    let shop = named("shop", "/shop", &[member(Member::dead(), "")], "");
    let members = [
        "url: 'http://127.0.0.1:1/', name: app1, route: app1",
        "url: 'http://127.0.0.1:2/base/', name: app2, route: app2",
    ];
    let output = run(&format!("{}---\n{shop}", balancer(&members.map(str::to_owned), STICKY)));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "Balancer site/app: it has host www.site.com and path /\n",
        "not site/shop: its path /shop is not the beginning of the request's\n",
        "session hit: it goes to the member that it names\n  cookie sessionid: route app2, of app2\n",
        "picked app2 127.0.0.1:2: the session is its own\n",
        "request path: /cart -> /base/cart\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let output = run(&shop.replace("path: /shop", "path: shop"));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("b.yaml:6: spec.path: "), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
