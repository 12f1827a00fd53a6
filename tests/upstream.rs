//! Members that speak HTTP/2.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::http2::{
    Frame, FrameMember, NO_ERROR, PING, REFUSED_STREAM, Writer, answer, goaway, max_streams, reset,
};
use support::{Client, Gibbon, Member, balancer, eventually, member, ok};

const HOST: &str = "www.site.com";

fn write(writer: &Writer, bytes: &[u8]) {
    let _ = writer.lock().unwrap().write_all(bytes);
}

/// A member that answers each request with the number of its connection.
fn ordinary(settings: Vec<u8>) -> FrameMember {
    FrameMember::new(settings, |connection, frame, writer| {
        if frame.ends() {
            write(writer, &answer(frame.stream, &connection.to_string()));
        }
    })
}

fn http2(member: &FrameMember, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    support::member(member.address, &format!("protocol: H2C{more}"))
}

fn gibbon(members: &[String]) -> Gibbon {
    Gibbon::start(&balancer(members, ""))
}

/// Connections to members, by protocol.
fn connections(gibbon: &Gibbon, protocol: &str) -> u64 {
    let page = gibbon.page("/metrics").text();
    let lines = page.lines().filter(|line| line.starts_with("gibbon_member_connections_total{"));
    let lines = lines.filter(|line| line.contains(&format!("protocol=\"{protocol}\"")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn requests_one_after_the_other_share_a_connection() {
    let app = ordinary(max_streams(100));
    let gibbon = gibbon(&[http2(&app, "")]);
    for _ in 0..5 {
        let seen = gibbon.get(HOST, "/a?b=c");
        assert_eq!((seen.status, seen.text().as_str()), (200, "0"));
    }
    assert_eq!(gibbon.post(HOST, "/", b"body").text(), "0");
    assert_eq!((connections(&gibbon, "http2"), connections(&gibbon, "http1")), (1, 0));
}

/// A member that holds its answers back until it has so many requests at once.
fn holding(settings: Vec<u8>, wanted: usize) -> FrameMember {
    let held: Arc<Mutex<Vec<(u32, Writer)>>> = Arc::default();
    FrameMember::new(settings, move |connection, frame, writer| {
        if frame.ends() {
            let mut held = held.lock().unwrap();
            held.push((frame.stream, Arc::clone(writer)));
            if held.len() == wanted {
                for (stream, writer) in held.drain(..) {
                    write(&writer, &answer(stream, &connection.to_string()));
                }
            }
        }
    })
}

fn at_once(gibbon: &Gibbon, count: usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| gibbon.client()).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    }
    for client in &mut clients {
        assert_eq!(client.read().unwrap().status, 200);
    }
}

#[test]
fn requests_at_once_share_one_connection_while_there_is_room() {
    let app = holding(max_streams(100), 50);
    let gibbon = gibbon(&[http2(&app, "")]);
    at_once(&gibbon, 50);
    assert_eq!(app.count(), 1);
}

#[test]
fn the_members_limit_of_streams_opens_more_connections_and_nothing_waits() {
    let app = holding(max_streams(2), 10);
    let gibbon = gibbon(&[http2(&app, "")]);
    // None is answered before all have arrived.
    at_once(&gibbon, 10);
    assert!((5..=6).contains(&app.count()), "{}", app.count());
}

#[test]
fn no_stream_is_above_a_limit_that_is_told_late() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::clone(&open);
    // Each connection has one stream, or it has been too hasty.
    let app = FrameMember::new(max_streams(1), move |_, frame, writer| {
        if frame.begins() {
            most.fetch_max(frame.stream as usize, SeqCst);
            let (stream, writer) = (frame.stream, Arc::clone(writer));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                write(&writer, &answer(stream, "x"));
            });
        }
    });
    let gibbon = gibbon(&[http2(&app, "")]);
    at_once(&gibbon, 8);
    assert_eq!(open.load(SeqCst), 1);
}

#[test]
fn a_connection_is_left_when_the_member_says_goaway() {
    let app = FrameMember::new(max_streams(100), |connection, frame, writer| {
        if frame.ends() {
            write(writer, &answer(frame.stream, &connection.to_string()));
            if connection == 0 {
                write(writer, &goaway(frame.stream, NO_ERROR));
            }
        }
    });
    let gibbon = gibbon(&[http2(&app, "")]);
    assert_eq!(gibbon.get(HOST, "/").text(), "0");
    for _ in 0..3 {
        assert_eq!(gibbon.post(HOST, "/", b"x").text(), "1");
    }
    assert_eq!(failures(&gibbon), "");
}

/// The lines of failures of the metrics' page.
fn failures(gibbon: &Gibbon) -> String {
    let page = gibbon.page("/metrics").text();
    let lines = page.lines().filter(|line| line.starts_with("gibbon_member_failures_total{"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_connection_that_has_fallen_silent_is_left_and_one_with_a_slow_answer_is_not() {
    // The first connection answers once, and then it is as if the way to the member was cut; or only
    // one of its answers does not come.
    for (is_cut, connection) in [(true, "1"), (false, "0")] {
        let mut asked = 0;
        let app = FrameMember::new(max_streams(100), move |connection, frame, writer| {
            if !frame.ends() {
                return;
            }
            asked += 1;
            let is_silent = connection == 0 && if is_cut { asked > 1 } else { asked == 2 };
            if !is_silent {
                write(writer, &answer(frame.stream, &connection.to_string()));
            } else if !is_cut {
                write(writer, &support::http2::frame(PING, 0, 0, &[7; 8]));
            }
        });
        let timeouts = "timeouts: {response: 300ms}";
        let gibbon = Gibbon::start(&balancer(&[http2(&app, "")], timeouts));
        assert_eq!(gibbon.get(HOST, "/").text(), "0");
        assert_eq!(gibbon.get(HOST, "/").status, 504);
        assert_eq!(gibbon.get(HOST, "/").text(), connection);
    }
}

#[test]
fn a_stream_above_the_goaways_last_is_sent_again_whatever_its_method() {
    let app =
        FrameMember::new(max_streams(100), |connection, frame, writer| match (connection, frame) {
            (0, frame) if frame.begins() && frame.stream > 1 => {
                write(writer, &goaway(1, NO_ERROR));
            }
            (_, frame) if frame.ends() => {
                write(writer, &answer(frame.stream, &connection.to_string()));
            }
            _ => {}
        });
    let gibbon = gibbon(&[http2(&app, "")]);
    assert_eq!(gibbon.get(HOST, "/").text(), "0");
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n");
    let mut client = gibbon.client();
    client.send(head);
    // The body comes when the first attempt has failed: none of it was taken.
    eventually(|| (app.count() == 2).then_some(()));
    assert_eq!(client.send("ab").read().unwrap().text(), "1");
    assert_eq!(failures(&gibbon), "");
}

#[test]
fn a_refused_stream_goes_to_another_member_whatever_its_method() {
    let busy = FrameMember::new(max_streams(100), |_, frame, writer| {
        if frame.begins() {
            write(writer, &reset(frame.stream, REFUSED_STREAM));
        }
    });
    let free = Member::new(ok("free"));
    let gibbon = gibbon(&[http2(&busy, ""), member(free.address, "state: Standby")]);
    for _ in 0..5 {
        assert_eq!(gibbon.ask("DELETE", HOST, "/", &[]).text(), "free");
        assert_eq!(gibbon.ask("POST", HOST, "/", &[("Content-Length", "0")]).text(), "free");
    }
    // It had no place, and is not out of reach.
    assert!(failures(&gibbon).contains("reason=\"stream_refused\""), "{}", failures(&gibbon));
    let excluded = "gibbon_members{namespace=\"site\",balancer=\"app\",state=\"excluded\"}";
    assert_eq!(gibbon.metric(excluded), Some(0.0));
}

#[test]
fn the_only_member_is_asked_twice_if_it_refuses_and_then_it_is_503() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let busy = FrameMember::new(max_streams(100), move |_, frame, writer| {
        if frame.begins() {
            let refuses = count.fetch_add(1, SeqCst) != 1;
            let bytes = if refuses {
                reset(frame.stream, REFUSED_STREAM)
            } else {
                answer(frame.stream, "at last")
            };
            write(writer, &bytes);
        }
    });
    let gibbon = gibbon(&[http2(&busy, "")]);
    let ask = || gibbon.ask("POST", HOST, "/", &[("Content-Length", "0")]);
    assert_eq!(ask().text(), "at last");
    assert_eq!(ask().status, 503);
    assert_eq!(asked.load(SeqCst), 4);
}

#[test]
fn a_refused_stream_that_has_taken_of_the_body_is_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let busy = FrameMember::new(max_streams(100), move |_, frame, writer| {
        if frame.ends() {
            count.fetch_add(1, SeqCst);
            write(writer, &reset(frame.stream, REFUSED_STREAM));
        }
    });
    let gibbon = gibbon(&[http2(&busy, "")]);
    assert_eq!(gibbon.post(HOST, "/", b"once").status, 502);
    assert_eq!(asked.load(SeqCst), 1);
}

#[test]
fn a_broken_connection_fails_what_is_on_it_but_what_may_be_repeated() {
    let app = FrameMember::new(max_streams(100), |connection, frame: &Frame, writer| {
        if frame.ends() && frame.stream > 1 && connection == 0 {
            let _ = writer.lock().unwrap().shutdown(Shutdown::Both);
        } else if frame.ends() {
            write(writer, &answer(frame.stream, &connection.to_string()));
        }
    });
    let gibbon = gibbon(&[http2(&app, "")]);
    assert_eq!(gibbon.get(HOST, "/").text(), "0");
    assert_eq!(gibbon.get(HOST, "/").text(), "1");
}

#[test]
fn a_member_that_speaks_http_1_only_never_sees_the_request() {
    let old = Member::new(ok("old"));
    let gibbon = gibbon(&[
        member(old.address, "protocol: H2C, name: wrong"),
        member(old.address, "state: Standby, name: right"),
    ]);
    assert_eq!(gibbon.post(HOST, "/", b"x").text(), "old");
    assert!(old.received().iter().all(|request| !request.line.starts_with("POST / HTTP/2")));
    assert!(failures(&gibbon).contains("member=\"wrong\""), "{}", failures(&gibbon));
}

#[test]
fn what_asks_for_another_protocol_goes_to_members_of_http_1_only() {
    let app = ordinary(max_streams(100));
    let socket = Member::new(support::Act::Echo(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec(),
    ));
    let ask = |gibbon: &Gibbon| {
        let mut client = gibbon.client();
        let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}\r\n")).read().unwrap()
    };
    let only = gibbon(&[http2(&app, "")]);
    let seen = ask(&only);
    assert_eq!(seen.status, 501);
    assert!(seen.text().contains("take no WebSocket"), "{}", seen.text());
    let both = gibbon(&[http2(&app, ""), member(socket.address, "state: Standby")]);
    assert_eq!(ask(&both).status, 101);
}
