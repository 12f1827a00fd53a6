//! HTTP itself: upgrades, trailers, 100-continue, HTTP/1.0, HTTP/2, framing, slow and silent clients.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Act, Gibbon, Member, Options, balancer, eventually, member, named, ok, response};

const HOST: &str = "www.site.com";

fn one(act: Act) -> (Member, Gibbon) {
    let app = Member::new(act);
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    (app, gibbon)
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

#[test]
fn a_websocket_is_a_tunnel_after_the_101() {
    let (app, gibbon) = one(Act::Echo(SWITCH.into()));
    let mut client = gibbon.client();
    client.send("GET /ws HTTP/1.1\r\nHost: www.site.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nearly");
    let seen = client.read().unwrap();
    assert_eq!(seen.status, 101);
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("connection"), Some("upgrade"));
    client.send(" bytes");
    let mut echo = [0; 11];
    client.read_exact(&mut echo);
    assert_eq!(&echo, b"early bytes");
    assert_eq!(app.received()[0].header("upgrade"), Some("websocket"));
    assert_eq!(gibbon.metric("gibbon_tunnels_open"), Some(1.0));
    assert_eq!(gibbon.metric("gibbon_connections_open"), Some(1.0));
    assert_eq!(gibbon.metric("gibbon_member_in_flight{"), Some(0.0));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());
    eventually(|| (gibbon.metric("gibbon_tunnels_open") == Some(0.0)).then_some(()));
}

#[test]
fn a_websocket_goes_on_when_its_balancer_changes_or_goes() {
    let (_app, gibbon) = one(Act::Echo(SWITCH.into()));
    let mut client = gibbon.client();
    client.send("GET /ws HTTP/1.1\r\nHost: www.site.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 101);
    let elsewhere = balancer(&[member(Member::dead(), "")], "");
    let changes = [(elsewhere.clone(), 503), (elsewhere.replace(HOST, "other.org"), 404)];
    for (yaml, status) in changes {
        gibbon.write("balancers.yaml", &yaml);
        eventually(|| (gibbon.get(HOST, "/").status == status).then_some(()));
        client.send("still");
        let mut echo = [0; 5];
        client.read_exact(&mut echo);
        assert_eq!(&echo, b"still");
    }
}

#[test]
fn an_upgrade_that_the_member_declines_stays_http() {
    let (_app, gibbon) = one(ok("plain"));
    let mut client = gibbon.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.read().unwrap().text(), "plain");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let (_app, gibbon) = one(Act::Write(SWITCH.into()));
    assert_eq!(gibbon.get(HOST, "/").status, 502);
}

#[test]
fn trailers_pass_both_ways() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n";
    let (app, gibbon) = one(Act::Write(answer.into()));
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\nX-Check: 9\r\nContent-Length: 1\r\n\r\n");
    let seen = client.read().unwrap();
    assert_eq!(seen.text(), "hi");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let received = &app.received()[0];
    assert_eq!((received.body.as_slice(), received.header("te")), (&b"abc"[..], Some("trailers")));
    assert_eq!(received.trailers, [("x-check".to_owned(), "9".to_owned())]);
}

#[test]
fn the_body_waits_for_the_members_100() {
    let (app, gibbon) = one(Act::Continue(response("200 OK", &[], "done")));
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 100);
    client.send("body");
    assert_eq!(client.read().unwrap().text(), "done");
    assert_eq!(app.received()[0].body, b"body");
    assert_eq!(app.received()[0].header("expect"), Some("100-continue"));
}

#[test]
fn an_early_refusal_reaches_a_client_that_waits_for_100() {
    let (_app, gibbon) = one(Act::BeforeBody(response("417 Expectation Failed", &[], "no")));
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 417);
    let mut client = gibbon.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: other.org\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.read().unwrap().status, 404);
}

/// A connection that is closed with bytes unread is reset, and the reset overtakes what is not read yet.
#[test]
fn an_early_answer_is_whole_for_a_client_that_sends_its_body_all_the_same() {
    let big = "x".repeat(300_000);
    let (_app, gibbon) = one(Act::BeforeBody(response("200 OK", &[], &big)));
    for _ in 0..3 {
        let mut client = gibbon.client();
        client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nExpect: 100-continue\r\nContent-Length: 150000\r\n\r\n");
        std::thread::sleep(Duration::from_millis(20));
        client.send(vec![b'u'; 150_000]);
        std::thread::sleep(Duration::from_millis(50));
        assert!(client.read().unwrap().text() == big);
        assert!(client.is_closed());
    }
}

#[test]
fn a_post_that_waits_for_100_goes_to_another_member_when_the_first_closes() {
    let bad = Member::new(Act::Close);
    let good = Member::new(Act::Continue(response("200 OK", &[], "good")));
    let members = [member(bad.address, "route: a"), member(good.address, "route: b")];
    let gibbon = Gibbon::start(&balancer(&members, "sticky: {cookie: s}"));
    let mut client = gibbon.client();
    client.send("PUT / HTTP/1.1\r\nHost: www.site.com\r\nCookie: s=a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 100);
    assert_eq!(client.send("body").read().unwrap().text(), "good");
    assert_eq!(good.received()[0].body, b"body");
}

#[test]
fn other_interim_answers_are_dropped() {
    let answer =
        [&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"[..], &response("200 OK", &[], "x")];
    let (_app, gibbon) = one(Act::Write(answer.concat()));
    assert_eq!(gibbon.get(HOST, "/").status, 200);
}

#[test]
fn http_1_0_is_served_with_and_without_keep_alive_and_host() {
    let app = Member::new(ok("hello"));
    let any = balancer(&[member(app.address, "")], "").replace("  hosts: [www.site.com]\n", "");
    let gibbon = Gibbon::start(&any);
    let mut client = gibbon.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.read().unwrap().text(), "hello");
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.read().unwrap().text(), "hello");
    assert!(client.is_closed());
    assert!(app.received()[0].line.ends_with("HTTP/1.1"));
}

#[test]
fn a_client_without_a_host_is_redirected_by_path() {
    let yaml = support::named("any", "/old/", &[], "redirect: {to: /new/}");
    let gibbon = Gibbon::start(&yaml.replace("  hosts: [www.site.com]\n", ""));
    let mut client = gibbon.client();
    let seen = client.send("GET /old/x?q HTTP/1.0\r\n\r\n").read().unwrap();
    assert_eq!(seen.header("location"), Some("/new/x?q"));
}

#[test]
fn a_part_of_the_paths_is_refused_and_reaches_nobody() {
    let app = Member::new(ok("app"));
    let yaml = [
        balancer(&[member(app.address, "")], ""),
        support::named("admin", "/admin", &[], "refuse: {}"),
        support::named("old", "/old", &[], "refuse: {status: 410}"),
    ];
    let gibbon = Gibbon::start(&yaml.join("---\n"));
    for (path, status) in [("/admin", 404), ("/admin/x", 404), ("//admin/x", 404), ("/old/", 410)] {
        assert_eq!(gibbon.get(HOST, path).status, status, "{path}");
    }
    assert_eq!(app.count(), 0);
    assert_eq!(gibbon.get(HOST, "/administrators").text(), "app");
}

#[test]
fn a_head_has_the_length_and_no_body() {
    let (app, gibbon) = one(Act::Write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()));
    let seen = gibbon.ask("HEAD", HOST, "/", &[]);
    assert_eq!((seen.status, seen.header("content-length")), (200, Some("5")));
    assert!(app.received()[0].line.starts_with("HEAD "));
}

#[test]
fn hosts_and_targets_are_strict() {
    let (app, gibbon) = one(ok("x"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: www.site.com\r\nHost: www.site.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: www.site.com/x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@www.site.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET http://www.site.com/ HTTP/1.1\r\n\r\n", 400),
        ("GET ftp://www.site.com/ HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 400),
        ("GET http://other.org/ HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 404),
        ("GET /a\\b HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 400),
        ("CONNECT www.site.com:80 HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: www.site.com\r\n\r\n", 200),
    ] {
        let mut client = gibbon.client();
        assert_eq!(client.send(request).read().map(|seen| seen.status), Some(status), "{request}");
    }
    assert_eq!(app.count(), 0);
    let mut client = gibbon.client();
    client.send("GET http://www.site.com/x?y HTTP/1.1\r\nHost: other.org\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 200);
    assert_eq!(app.received()[0].target(), "/x?y");
}

/// Requests whose length two servers could understand differently, or that are malformed.
const AMBIGUOUS: [&str; 19] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: -1",
    "Content-Length:",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    "Content-Length : 5",
    "X: a\rb\r\nContent-Length: 5",
    "X: a\r\n folded\r\nContent-Length: 5",
    "X: a\0b\r\nContent-Length: 5",
    " Content-Length: 5",
];

#[test]
fn ambiguous_requests_end_their_connection_and_smuggle_nothing() {
    for fields in AMBIGUOUS {
        let (app, gibbon) = one(ok("x"));
        let mut client = gibbon.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: www.site.com\r\n{fields}\r\n\r\n"));
        let _ = client
            .stream
            .write_all(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
        let seen = client.read().unwrap_or_else(|| panic!("{fields}: no answer"));
        let resolved = fields.contains("Content-Length: 5") && fields.contains("chunked");
        assert!(
            seen.status == 400 || (resolved && seen.status == 200),
            "{fields}: {}",
            seen.status
        );
        assert!(seen.status == 200 || seen.text().starts_with("Bad Request: the "), "{fields}");
        assert!(client.is_closed(), "{fields}");
        let received = app.received();
        assert!(received.iter().all(|r| r.target() == "/"), "{fields}: {received:?}");
        for request in received {
            let both = request.header("content-length").and(request.header("transfer-encoding"));
            assert!(both.is_none(), "{fields}: {request:?}");
        }
    }
}

#[test]
fn a_head_that_cannot_be_read_gets_an_answer_that_says_why() {
    let (app, gibbon) = one(ok("x"));
    let good = "GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n";
    let long = format!("GET / HTTP/1.1\r\nHost: www.site.com\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: www.site.com\r\n{}\r\n", "X: y\r\n".repeat(101));
    let too_large = "Request Header Fields Too Large: the request's head is too large\n";
    for (request, status, text) in [
        (
            "GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
            400,
            "Bad Request: the request's head is malformed\n",
        ),
        ("nonsense\r\n\r\n", 400, "Bad Request: the request's head is malformed\n"),
        (&long, 431, too_large),
        (&many, 431, too_large),
    ] {
        // The answer before it may leave in the same write.
        for before in [0, 1, 3] {
            let mut client = gibbon.client();
            client.send(good.repeat(before) + request);
            for _ in 0..before {
                assert_eq!(client.read().unwrap().text(), "x");
            }
            let seen = client.read().unwrap();
            assert_eq!((seen.status, seen.text().as_str()), (status, text), "after {before}");
            assert_eq!(seen.header("connection"), Some("close"));
            assert!(seen.header("date").is_some());
            assert!(client.is_closed());
        }
    }
    assert_eq!(app.count(), 16);
    let refused =
        |reason| gibbon.metric(&format!("gibbon_refused_requests_total{{reason=\"{reason}\"}}"));
    eventually(|| (refused("head_too_large") == Some(6.0)).then_some(()));
    assert_eq!(refused("bad_request"), Some(6.0));
}

#[test]
fn a_members_own_empty_400_stays_as_it_is() {
    for head in ["HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0 431 No\r\n\r\n"] {
        let (_app, gibbon) = one(Act::Write(head.into()));
        let mut client = gibbon.client();
        client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\nConnection: close\r\n\r\n");
        assert_eq!(client.read().unwrap().text(), "", "{head}");
        let seen = gibbon.ask("HEAD", HOST, "/", &[("Connection", "close")]);
        assert_eq!(seen.header("content-type"), None, "{head}");
    }
}

#[test]
fn what_a_member_sends_is_never_taken_for_hypers_own() {
    // An answer such as hyper gives to a malformed head, as a body of another.
    let text = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
    let (_app, gibbon) = one(ok(text));
    let mut client = gibbon.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
        assert_eq!(client.read().unwrap().text(), text);
    }
    // Apart from its head, and as a chunk.
    for head in ["Content-Length: 103", "Transfer-Encoding: chunked"] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        let body = if head.contains("chunked") {
            format!("67\r\n{text}\r\n0\r\n\r\n")
        } else {
            text.to_owned()
        };
        assert_eq!(text.len(), 103);
        let wait = Duration::from_millis(30);
        let (_app, gibbon) = one(Act::Slowly(head.into_bytes(), wait, body.into_bytes()));
        assert_eq!(gibbon.get(HOST, "/").text(), text);
    }
    // In a tunnel.
    let (_app, gibbon) = one(Act::Echo(SWITCH.into()));
    let mut client = gibbon.client();
    client.send("GET /ws HTTP/1.1\r\nHost: www.site.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 101);
    client.send(text);
    let mut echo = vec![0; text.len()];
    client.read_exact(&mut echo);
    assert_eq!(echo, text.as_bytes());
}

#[test]
fn a_body_that_turns_out_malformed_is_400_and_ends_the_members_connection() {
    for chunk in ["zz\r\n", "-1\r\nabc\r\n", "3\r\nabcX", "3 3\r\nabc\r\n"] {
        let (app, gibbon) = one(ok("x"));
        let mut client = gibbon.client();
        client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
        client.send(chunk);
        assert_eq!(client.read().unwrap().status, 400, "{chunk:?}");
        assert!(client.is_closed());
        eventually(|| (app.count() == 1).then_some(()));
        assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
    }
}

#[test]
fn ambiguous_answers_are_502_and_their_connection_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ] {
        let (app, gibbon) = one(Act::Write(answer.into()));
        for number in 1..=2 {
            assert_eq!(gibbon.get(HOST, "/").status, 502, "{answer:?}");
            assert_eq!(
                app.connections.load(std::sync::atomic::Ordering::SeqCst),
                number,
                "{answer:?}"
            );
        }
    }
}

#[test]
fn bytes_after_an_answer_are_nobody_elses_answer() {
    let twice = [response("200 OK", &[], "one"), response("200 OK", &[], "stolen")].concat();
    let (_app, gibbon) = one(Act::Write(twice));
    for _ in 0..5 {
        assert_eq!(gibbon.get(HOST, "/").text(), "one");
    }
}

#[test]
fn bodies_have_a_limit() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], "limits: {requestBody: 10}"));
    assert_eq!(gibbon.post(HOST, "/", b"0123456789").status, 200);
    assert_eq!(gibbon.post(HOST, "/", b"0123456789a").status, 413);
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 413);
    let big = vec![0; 30_000_000];
    assert_eq!(gibbon.post(HOST, "/", &big).status, 413);
}

fn impatient(idle: u64) -> Options {
    let mut options = Options::default();
    options.settings.patience.head = Duration::from_millis(400);
    options.settings.patience.idle = Duration::from_millis(idle);
    options.settings.body_timeout = Duration::from_millis(400);
    options.settings.patience.write = Duration::from_millis(400);
    options
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n";
/// After so long, an idle connection has only its socket.
const RESTING: Duration = Duration::from_millis(400);

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

#[test]
fn a_connection_that_has_rested_goes_on_where_it_was() {
    let (app, gibbon) = one(ok("x"));
    let mut halves = gibbon.client();
    let mut client = gibbon.client();
    for _ in 0..2 {
        assert_eq!(client.send(ASK).read().unwrap().status, 200);
        // Nor is anything lost after a body, whatever comes with it.
        for framed in ["Content-Length: 3\r\n\r\nabc", CHUNKED] {
            let head = "POST / HTTP/1.1\r\nHost: www.site.com\r\n";
            assert_eq!(client.send([head, framed].concat()).read().unwrap().status, 200);
            std::thread::sleep(RESTING);
            client.send([head, framed, &ASK[..30]].concat());
            assert_eq!(client.read().unwrap().status, 200);
            std::thread::sleep(RESTING);
            assert_eq!(client.send(&ASK[30..]).read().unwrap().status, 200);
        }
        assert_eq!(halves.send(ASK).read().unwrap().status, 200);
        halves.send(&ASK[..20]);
        std::thread::sleep(RESTING);
        // A head that has begun is kept, and one that has begun with the request before it.
        halves.send([&ASK[20..], ASK, &ASK[..30]].concat());
        assert_eq!(halves.read().unwrap().status, 200);
        assert_eq!(halves.read().unwrap().status, 200);
        std::thread::sleep(RESTING);
        assert_eq!(halves.send(&ASK[30..]).read().unwrap().status, 200);
        client.send(ASK.repeat(2));
        assert_eq!(client.read().unwrap().status, 200);
        assert_eq!(client.read().unwrap().status, 200);
    }
    std::thread::sleep(RESTING);
    client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 200);
    assert!(client.is_closed());
    drop(halves);
    eventually(|| (gibbon.metric("gibbon_connections_open") == Some(0.0)).then_some(()));
    assert_eq!(app.count(), 27);
}

#[test]
fn a_body_that_comes_after_its_answer_is_no_request_of_its_own() {
    // The member answers before it has read anything, and nobody reads what comes.
    let (app, gibbon) = one(Act::BeforeBody(response("200 OK", &[], "x")));
    for answered in ["/", "/unknown/../%zz"] {
        for framing in ["Content-Length: 44", "Transfer-Encoding: chunked"] {
            let mut client = gibbon.client();
            let head =
                format!("POST {answered} HTTP/1.1\r\nHost: www.site.com\r\n{framing}\r\n\r\n");
            client.send(head);
            assert!(client.read().is_some());
            std::thread::sleep(RESTING);
            // It may be closed by now, and must not be answered.
            let _ = client.stream.write_all(ASK.as_bytes());
            let _ = client.stream.write_all(ASK.as_bytes());
            let answer = client.read();
            assert!(answer.is_none_or(|seen| seen.status == 400), "{answered} {framing}");
        }
    }
    assert!(app.received().iter().all(|received| received.line.starts_with("POST ")));
}

#[test]
fn a_tunnel_may_begin_on_a_connection_that_has_rested() {
    let (app, gibbon) = one(ok("x"));
    let mut client = gibbon.client();
    assert_eq!(client.send(ASK).read().unwrap().status, 200);
    app.act(Act::Echo(SWITCH.into()));
    std::thread::sleep(RESTING);
    client.send("GET /ws HTTP/1.1\r\nHost: www.site.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 101);
    std::thread::sleep(RESTING);
    client.send("echo");
    let mut echo = [0; 4];
    client.read_exact(&mut echo);
    assert_eq!(&echo, b"echo");
}

#[test]
fn limits_hold_for_a_connection_that_has_rested() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(2500));
    let mut idle = gibbon.client();
    let mut late = gibbon.client();
    for client in [&mut idle, &mut late] {
        assert_eq!(client.send(ASK).read().unwrap().status, 200);
    }
    let before = Instant::now();
    std::thread::sleep(RESTING);
    late.send(&ASK[..20]);
    assert!(late.is_closed());
    assert!(before.elapsed() < Duration::from_millis(2400), "{:?}", before.elapsed());
    assert!(idle.is_closed());
    assert!(before.elapsed() > Duration::from_millis(2400), "{:?}", before.elapsed());
    eventually(|| (gibbon.metric("gibbon_connections_open") == Some(0.0)).then_some(()));
}

#[test]
fn a_connection_does_not_rest_before_its_client_has_taken_everything() {
    let big = "x".repeat(300_000);
    let (_app, gibbon) = one(ok(&big));
    let mut client = gibbon.client();
    let buffer = socket2::SockRef::from(&client.stream);
    buffer.set_recv_buffer_size(128 << 10).unwrap();
    for _ in 0..2 {
        client.send(ASK.repeat(16));
        std::thread::sleep(RESTING * 2);
        for _ in 0..16 {
            assert!(client.read().unwrap().text() == big);
        }
    }
}

#[test]
fn a_thousand_silent_clients_and_a_thousand_half_prefaces_hold_nobody_up() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
    let mut silent = Vec::new();
    for number in 0..2000 {
        let mut stream = TcpStream::connect(gibbon.address).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"PRI ").unwrap();
        }
        silent.push(stream);
    }
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    for mut stream in silent {
        stream.set_read_timeout(Some(support::LIMIT)).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    eventually(|| (gibbon.metric("gibbon_connections_open") == Some(0.0)).then_some(()));
}

#[test]
fn slow_heads_and_idle_connections_are_cut_off() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(700));
    let mut slow = gibbon.client();
    slow.send("GET / HTTP/1.1\r\nHost: www");
    assert!(slow.is_closed());
    let mut idle = gibbon.client();
    idle.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
    assert_eq!(idle.read().unwrap().status, 200);
    let before = Instant::now();
    assert!(idle.is_closed());
    assert!(before.elapsed() > Duration::from_millis(500));
    let mut second = gibbon.client();
    second.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
    assert_eq!(second.read().unwrap().status, 200);
    second.send("GET / HTTP/1.1\r\nHo");
    assert!(second.is_closed());
}

#[test]
fn a_head_that_trickles_in_is_cut_off() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
    let mut client = gibbon.client();
    client.send("GET / HTTP/1.1\r\nX: ");
    let before = Instant::now();
    // A byte now and then must not buy more time.
    while client.stream.write_all(b"x").is_ok() {
        assert!(before.elapsed() < Duration::from_secs(5), "still open");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_stalls_in_its_body_is_408_and_no_failure_of_the_member() {
    let app = Member::new(ok("x"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.read().unwrap().status, 408);
    assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let big = "x".repeat(64 << 20);
    let app = Member::new(ok(&big));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
    let mut client = gibbon.client();
    client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
    eventually(|| (gibbon.metric("gibbon_aborted_requests_total{") == Some(1.0)).then_some(()));
    assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
}

#[test]
fn requests_in_a_row_are_answered_in_order_on_one_member_connection() {
    let app = Member::with(|request| ok(request.target()));
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    let mut client = gibbon.client();
    for number in 0..10 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: www.site.com\r\n\r\n"));
    }
    for number in 0..10 {
        assert_eq!(client.read().unwrap().text(), format!("/{number}"));
    }
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_request_that_goes_round_in_circles_is_508() {
    let gibbon =
        Gibbon::start(&balancer(&["url: 'http://self.internal/'".into()], "preserveHost: true"));
    let second = Duration::from_secs(1);
    let answer = gibbon::source::names::Answer::Addresses(vec![gibbon.address], second);
    gibbon.resolver.fix("self.internal", 80, answer);
    eventually(|| (gibbon.get(HOST, "/").status == 508).then_some(()));
}

#[test]
fn rules_change_headers_redirect_and_shut_out() {
    let app =
        Member::new(Act::Write(response("200 OK", &[("Server", "app"), ("X-Old", "1")], "x")));
    let edits = "headers:\n  request: {set: [{name: X-Team, value: blue}], remove: [X-Secret]}\n  response: {remove: [X-Old], add: [{name: Vary, value: Cookie}]}";
    let yaml = [
        balancer(&[member(app.address, "")], edits),
        support::named("old", "/old/", &[], "redirect: {to: /new/, status: 301}"),
        support::named(
            "away",
            "/away",
            &[],
            "redirect: {to: 'https://www.site.org/x', keepPath: false}",
        ),
        support::named(
            "inner",
            "/inner/",
            &[member(app.address, "")],
            "access: {allow: [10.0.0.0/8]}",
        ),
    ]
    .join("---\n");
    let gibbon = Gibbon::with(&yaml, Options::default().trusting());
    let seen = gibbon.ask("GET", HOST, "/", &[("X-Secret", "s"), ("X-Team", "red")]);
    assert_eq!(
        (seen.header("x-old"), seen.header("vary"), seen.header("server")),
        (None, Some("Cookie"), Some("app"))
    );
    let received = &app.received()[0];
    assert_eq!((received.all("x-team"), received.header("x-secret")), (vec!["blue"], None));
    let seen = gibbon.get(HOST, "/old/a%20b?c=d");
    assert_eq!(
        (seen.status, seen.header("location")),
        (301, Some("http://www.site.com/new/a%20b?c=d"))
    );
    let seen = gibbon.get(HOST, "/away/x?y");
    assert_eq!((seen.status, seen.header("location")), (308, Some("https://www.site.org/x")));
    assert_eq!(gibbon.get(HOST, "/inner/").status, 403);
    let from =
        |client: &str| gibbon.ask("GET", HOST, "/inner/", &[("X-Forwarded-For", client)]).status;
    assert_eq!((from("10.1.2.3"), from("11.1.2.3"), from("10.1.2.3, 11.0.0.1")), (200, 403, 403));
}

#[test]
fn trusted_peers_say_how_the_client_addressed_the_site() {
    let app = Member::with(|request| {
        let host = request.header("host").unwrap();
        Act::Write(response("302 Found", &[("Location", &format!("http://{host}/login"))], ""))
    });
    let gibbon =
        Gibbon::with(&balancer(&[member(app.address, "")], ""), Options::default().trusting());
    let said = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example.org")];
    let seen = gibbon.ask("GET", HOST, "/", &said);
    assert_eq!(seen.header("location"), Some("https://shop.example.org/login"));
    let kept = Gibbon::with(
        &balancer(&[member(app.address, "")], "preserveHost: true"),
        Options::default(),
    );
    let seen = kept.ask("GET", "www.site.com:8080", "/", &said);
    assert_eq!(seen.header("location"), Some("http://www.site.com:8080/login"));
    assert_eq!(app.received().last().unwrap().header("host"), Some("www.site.com:8080"));
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// Runs a client that knows that Gibbon speaks HTTP/2; its windows are of this many bytes.
fn http_2(gibbon: &Gibbon, window: u32, client: impl AsyncFnOnce(Sender)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gibbon.address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(support::LIMIT, client(sender)).await.expect("an end in time");
    });
}

#[test]
fn http_2_with_prior_knowledge_is_served_and_its_cookies_are_joined() {
    let (app, gibbon) = one(ok("hi"));
    http_2(&gibbon, 65_535, async |mut sender| {
        for text in ["", "hello"] {
            let request = http::Request::post("http://www.site.com/x?y")
                .header("cookie", "a=b")
                .header("cookie", "c=d")
                .body(Full::new(Bytes::from(text)))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "hi");
        }
        let unknown = http::Request::get("http://other.org/").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(unknown).await.unwrap().status(), 404);
    });
    assert_eq!(app.received()[1].body, b"hello");
    let received = &app.received()[0];
    assert_eq!(
        (received.line.as_str(), received.header("host")),
        ("POST /x?y HTTP/1.1", Some(app.address.to_string().as_str()))
    );
    assert_eq!(
        (received.all("cookie"), received.header("content-length")),
        (vec!["a=b; c=d"], Some("0"))
    );
}

#[test]
fn a_stream_of_http_2_that_is_not_read_gives_its_member_back() {
    // With a window of 0 the body is never even begun.
    for window in [0, 65_535] {
        let app = Member::new(ok(&"x".repeat(8 << 20)));
        let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
        http_2(&gibbon, window, async |mut sender| {
            let request = http::Request::get("http://www.site.com/").body(Full::default()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            while gibbon.metric("gibbon_aborted_requests_total{") != Some(1.0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(gibbon.metric("gibbon_member_in_flight{"), Some(0.0));
            if window > 0 {
                assert!(response.into_body().collect().await.is_err());
            }
            // The connection serves on.
            let head = http::Request::head("http://www.site.com/").body(Full::default()).unwrap();
            assert_eq!(sender.send_request(head).await.unwrap().status(), 200);
        });
        assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
    }
}

#[test]
fn a_websocket_over_http_2_is_one_of_http_1_1_at_the_member() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (app, gibbon) = one(Act::Echo(SWITCH.into()));
    http_2(&gibbon, 65_535, async |mut sender| {
        let mut request = http::Request::connect("http://www.site.com/chat?a=b")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .body(Full::<Bytes>::default())
            .unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        let mut response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().get("sec-websocket-accept").is_none());
        assert!(response.headers().get("upgrade").is_none());
        let mut tunnel = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        tunnel.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
        assert_eq!(gibbon.metric("gibbon_tunnels_open"), Some(1.0));
        // The connection serves others meanwhile.
        let unknown = http::Request::get("http://other.org/").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(unknown).await.unwrap().status(), 404);
        tunnel.shutdown().await.unwrap();
        assert_eq!(tunnel.read(&mut echo).await.unwrap(), 0);
    });
    eventually(|| (gibbon.metric("gibbon_tunnels_open") == Some(0.0)).then_some(()));
    let received = &app.received()[0];
    assert_eq!(received.line, "GET /chat?a=b HTTP/1.1");
    assert_eq!(received.header("upgrade"), Some("websocket"));
    assert_eq!(received.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(received.header("sec-websocket-key").map(str::len), Some(24));
    // Other protocols than that are CONNECT, which is refused.
    http_2(&gibbon, 65_535, async |mut sender| {
        let mut request =
            http::Request::connect("http://www.site.com/").body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("other"));
        assert_eq!(sender.send_request(request).await.unwrap().status(), 405);
    });
}

#[test]
fn a_client_of_http_2_that_takes_no_end_is_idle() {
    let app = Member::new(ok("short"));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(400));
    for host in ["www.site.com", "other.org"] {
        http_2(&gibbon, 0, async |mut sender| {
            let request =
                http::Request::get(format!("http://{host}/")).body(Full::default()).unwrap();
            let _response = sender.send_request(request).await.unwrap();
            while gibbon.metric("gibbon_connections_open") != Some(0.0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

#[test]
fn the_time_for_the_whole_holds_while_the_body_flows() {
    let app = Member::new(ok(&"x".repeat(64 << 20)));
    let limit = "timeouts: {request: 400ms}";
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], limit));
    let mut client = gibbon.client();
    client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
    let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        // Slower than the member, which is never waited for.
        std::thread::sleep(Duration::from_millis(5));
        match client.stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(bytes) => read += bytes,
        }
    }
    assert!(read < 64 << 20, "all of it came");
    assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
}

#[test]
fn a_stream_of_http_2_that_is_read_slowly_is_not_cut_off() {
    let app = Member::new(ok(&"x".repeat(1_000_000)));
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), impatient(60_000));
    http_2(&gibbon, 65_535, async |mut sender| {
        let request = http::Request::get("http://www.site.com/").body(Full::default()).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        let (mut read, begun) = (0, Instant::now());
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().data_ref().map_or(0, Bytes::len);
            // Slowness is what this is about: in all longer than the patience.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(read, 1_000_000);
        assert!(begun.elapsed() > Duration::from_millis(400), "too quick to show anything");
    });
}

#[test]
fn too_many_connections_are_refused_and_counted() {
    let app = Member::new(ok("x"));
    let mut options = Options::default();
    options.settings.max_connections = 2;
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), options);
    let mut held = [gibbon.client(), gibbon.client()];
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
        assert_eq!(client.read().unwrap().status, 200);
    }
    assert!(gibbon.client().is_closed());
    assert_eq!(gibbon.metric("gibbon_connections_refused_total"), Some(1.0));
    drop(held);
    eventually(|| gibbon.client().send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n").read());
}

#[test]
fn the_proxy_protocol_names_the_client_where_it_is_expected_and_nowhere_else() {
    use gibbon::table::access::{Networks, parse_network};
    let app = Member::new(ok("x"));
    let announcing = |network: &str| {
        let mut options = Options::default();
        options.settings.announcing = Networks::new(vec![parse_network(network).unwrap()]);
        Gibbon::with(
            &balancer(&[member(app.address, "")], "access: {deny: [203.0.113.66]}"),
            options,
        )
    };
    let request = "GET / HTTP/1.1\r\nHost: www.site.com\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n";
    let gibbon = announcing("127.0.0.0/8");
    let mut client = gibbon.client();
    client.send(format!("PROXY TCP4 203.0.113.9 192.0.2.1 8080 80\r\n{request}{request}"));
    assert_eq!(client.read().unwrap().status, 200);
    assert_eq!(client.read().unwrap().status, 200);
    for received in app.received() {
        assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.9"));
        assert_eq!(received.header("x-real-ip"), Some("203.0.113.9"));
    }
    let mut denied = gibbon.client();
    denied.send(format!("PROXY TCP4 203.0.113.66 192.0.2.1 8080 80\r\n{request}"));
    assert_eq!(denied.read().unwrap().status, 403);
    let mut without = gibbon.client();
    without.send(request);
    assert!(without.is_closed());
    // Where nobody is to say it, it is a malformed request.
    let gibbon = announcing("192.0.2.0/24");
    let mut client = gibbon.client();
    client.send(format!("PROXY TCP4 203.0.113.9 192.0.2.1 8080 80\r\n{request}"));
    assert_eq!(client.read().unwrap().status, 400);
}

#[test]
fn the_address_that_a_peer_announces_is_the_one_that_everybody_hears() {
    use gibbon::table::access::{Networks, parse_network};
    let app = Member::new(ok("x"));
    let networks = |text: &str| Networks::new(vec![parse_network(text).unwrap()]);
    let mut options = Options::default();
    options.settings.announcing = networks("127.0.0.0/8");
    options.settings.trusted = networks("10.0.0.0/8");
    let rule = "access: {deny: [203.0.113.66]}";
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], rule), options);
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let second = |command: u8, ip: [u8; 4]| {
        [&signature[..], &[command, 0x11, 0, 12], &ip, &[192, 0, 2, 1, 0x1f, 0x90, 0, 80]].concat()
    };
    let first = |ip: &str| format!("PROXY TCP4 {ip} 192.0.2.1 8080 80\r\n").into_bytes();
    // Whoever is announced is the peer: believed or not by its own address, as the one who says what
    // is in the fields; another header within the connection is no header.
    for (header, said, status, heard) in [
        (first("203.0.113.9"), "203.0.113.1", 200, Some(["203.0.113.9", "203.0.113.9"])),
        (second(0x21, [203, 0, 113, 9]), "203.0.113.1", 200, Some(["203.0.113.9", "203.0.113.9"])),
        (first("10.0.0.7"), "203.0.113.1", 200, Some(["203.0.113.1, 10.0.0.7", "203.0.113.1"])),
        (first("10.0.0.7"), "203.0.113.66", 403, None),
        (first("203.0.113.66"), "203.0.113.1", 403, None),
        // The balancer speaks for itself: its own address, and it is not trusted.
        (second(0x20, [203, 0, 113, 9]), "203.0.113.1", 200, Some(["127.0.0.1", "127.0.0.1"])),
        (b"PROXY UNKNOWN\r\n".to_vec(), "203.0.113.1", 200, Some(["127.0.0.1", "127.0.0.1"])),
        ([first("203.0.113.9"), first("203.0.113.8")].concat(), "203.0.113.1", 400, None),
        (
            [second(0x21, [203, 0, 113, 9]), second(0x21, [203, 0, 113, 8])].concat(),
            "203.0.113.1",
            400,
            None,
        ),
    ] {
        let count = app.count();
        let fields =
            format!("X-Forwarded-For: {said}\r\nX-Real-IP: {said}\r\nForwarded: for={said}");
        let mut client = gibbon.client();
        client.send(&header);
        client.send(format!("GET / HTTP/1.1\r\nHost: www.site.com\r\n{fields}\r\n\r\n"));
        assert_eq!(client.read().map(|seen| seen.status), Some(status), "{header:?} {said}");
        let Some(heard) = heard else {
            assert_eq!(app.count(), count, "{header:?} {said}");
            continue;
        };
        let received = app.received().pop().unwrap();
        let told = ["x-forwarded-for", "x-real-ip"].map(|name| received.all(name).join("; "));
        assert_eq!(told, heard, "{header:?} {said}");
    }
    let headers = gibbon.metric("gibbon_proxy_headers_total{result=\"ok\"}");
    assert_eq!(headers, Some(9.0));
}

#[test]
fn who_announces_nobody_makes_room_for_the_next() {
    use gibbon::table::access::{Networks, parse_network};
    let app = Member::new(ok("x"));
    let mut options = Options::default();
    options.settings.announcing = Networks::new(vec![parse_network("127.0.0.0/8").unwrap()]);
    options.settings.max_handshakes = 10;
    let gibbon = Gibbon::with(&balancer(&[member(app.address, "")], ""), options);
    let stalled: Vec<_> = (0..30).map(|_| gibbon.client()).collect();
    let crowded = "gibbon_proxy_headers_total{result=\"crowded_out\"}";
    eventually(|| (gibbon.metric(crowded) == Some(20.0)).then_some(()));
    let mut client = gibbon.client();
    client.send("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
    assert_eq!(client.read().unwrap().text(), "x");
    drop(stalled);
}

#[test]
fn a_path_alone_is_served_by_its_own_balancer() {
    let (all, front) = (Member::new(ok("all")), Member::new(ok("front")));
    let url = format!("url: 'http://{}/start/'", front.address);
    let yaml = [
        balancer(&[member(all.address, "")], ""),
        named("front", "/", &[url], "pathType: Exact"),
        named("old", "/old", &[], "pathType: Exact\nredirect: {to: /new/, status: 301}"),
    ];
    let gibbon = Gibbon::start(&yaml.join("---\n"));
    assert_eq!(gibbon.get("www.site.com", "/?a=b").text(), "front");
    assert_eq!(gibbon.get("www.site.com", "/x").text(), "all");
    assert_eq!(front.received()[0].line, "GET /start/?a=b HTTP/1.1");
    assert_eq!(gibbon.get("www.site.com", "/old/").text(), "all");
    let seen = gibbon.get("www.site.com", "/old?a");
    assert_eq!(seen.header("location"), Some("http://www.site.com/new/?a"));
}
