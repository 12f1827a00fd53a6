//! Connections of HTTP/1.1 to members: what goes both ways at once, and what ends early.

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use support::{Act, Gibbon, Member, balancer, eventually, member, read_head, response};

const HOST: &str = "www.site.com";
const ASK: &str = "GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n";

/// A member that does this with each connection.
fn raw(act: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, act) = (stream.unwrap(), act.clone());
            stream.set_read_timeout(Some(support::LIMIT)).unwrap();
            std::thread::spawn(move || act(stream));
        }
    });
    address
}

fn one(address: SocketAddr) -> Gibbon {
    Gibbon::start(&balancer(&[member(address, "")], ""))
}

fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut text, mut rest, mut sizes) = (Vec::new(), body, sizes.iter().cycle());
    while !rest.is_empty() {
        let (part, others) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        text.extend_from_slice(part);
        text.extend_from_slice(b"\r\n");
        rest = others;
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Both sides send more than all buffers hold, and neither reads before it has sent.
#[test]
fn a_request_goes_on_while_nobody_reads_its_answer() {
    const LENGTH: usize = 64 << 20;
    let address = raw(|stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while read_head(&mut reader).is_some() {
            let mut early = writer.try_clone().unwrap();
            let answer = std::thread::spawn(move || {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
                early.write_all(head.as_bytes()).unwrap();
                early.write_all(&vec![b'a'; LENGTH - 1]).unwrap();
            });
            let mut body = vec![0; LENGTH];
            reader.read_exact(&mut body).unwrap();
            assert!(body.iter().all(|byte| *byte == b'u'));
            answer.join().unwrap();
            writer.write_all(b"!").unwrap();
        }
    });
    let gibbon = one(address);
    let mut client = gibbon.client();
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LENGTH}\r\n\r\n"));
        client.send(vec![b'u'; LENGTH]);
        let answer = client.read().unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, LENGTH));
        assert_eq!(answer.body.last(), Some(&b'!'));
    }
}

#[test]
fn a_connection_whose_answer_came_first_is_used_again_when_all_is_sent() {
    let app = Member::new(Act::BeforeBody(response("200 OK", &[], "x")));
    let gibbon = one(app.address);
    let body = noise(300_000);
    let mut client = gibbon.client();
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head).send(&body[..100_000]);
    assert_eq!(client.read().unwrap().status, 200);
    // Another one is needed meanwhile.
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    client.send(&body[100_000..]);
    eventually(|| (app.count() == 2).then_some(()));
    let first = app.received().into_iter().find(|received| !received.body.is_empty()).unwrap();
    assert!(first.body == body);
    let connections = app.connections.load(SeqCst);
    assert_eq!(connections, 2);
    for _ in 0..5 {
        assert_eq!(client.send(ASK).read().unwrap().status, 200);
        assert_eq!(gibbon.get(HOST, "/").status, 200);
    }
    assert_eq!(app.connections.load(SeqCst), connections);
}

#[test]
fn a_client_that_goes_away_while_it_sends_takes_the_members_connection_with_it() {
    let app = Member::new(Act::BeforeBody(response("200 OK", &[], "x")));
    let gibbon = one(app.address);
    let mut client = gibbon.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nsome"));
    assert_eq!(client.read().unwrap().status, 200);
    drop(client);
    // It sees the end of what it reads, and no other request in it.
    let post = eventually(|| app.received().pop());
    assert!(post.line.starts_with("POST "));
    assert!(!post.body.windows(3).any(|part| part == b"GET"));
    for _ in 0..5 {
        assert_eq!(gibbon.get(HOST, "/").status, 200);
    }
}

/// A member that refuses a body and closes at once resets the connection, as it has not read all.
#[test]
fn a_refusal_is_heard_though_the_rest_of_the_body_cannot_be_sent() {
    let address = raw(|stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        read_head(&mut reader);
        writer
            .write_all(&response("413 Content Too Large", &[("Connection", "close")], ""))
            .unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        // What is not read by then resets it.
        std::thread::sleep(Duration::from_millis(300));
    });
    let gibbon = one(address);
    for _ in 0..3 {
        assert_eq!(gibbon.post(HOST, "/", &vec![0; 8 << 20]).status, 413);
    }
}

#[test]
fn an_idle_connection_that_the_member_ends_is_closed() {
    let (tell, told) = channel();
    let address = raw(move |stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while read_head(&mut reader).is_some() {
            writer.write_all(&response("200 OK", &[], "x")).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
        tell.send(()).unwrap();
    });
    let gibbon = one(address);
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    told.recv_timeout(Duration::from_secs(3)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn bodies_pass_both_ways_whatever_their_framing(
        length in 0..300_000_usize,
        sizes in proptest::collection::vec(1..70_000_usize, 1..5),
        ends in any::<bool>(),
    ) {
        let body = noise(length);
        let coded = chunked(&body, &sizes);
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let act = if ends {
            Act::WriteAndClose([b"HTTP/1.1 200 OK\r\n\r\n", &*body].concat())
        } else {
            Act::Write([head, &coded].concat())
        };
        let app = Member::new(act);
        let gibbon = one(app.address);
        let mut client = gibbon.client();
        let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..2 {
            client.send(&head).send(&coded);
            prop_assert!(client.read().unwrap().body == body);
            client.send(ASK);
            prop_assert!(client.read().unwrap().body == body);
        }
        for received in app.received().iter().step_by(2) {
            prop_assert!(received.body == body);
        }
    }
}
