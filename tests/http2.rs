//! HTTP/2 frame by frame: what clients that mean harm get, and what others notice of it.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{Act, Gibbon, Member, balancer, eventually, join, member, named, ok};

const HOST: &str = "www.site.com";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that Gibbon sent.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error of a `RST_STREAM` or a `GOAWAY`.
    fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is neither in a table nor to be taken into one (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).unwrap());
        } else {
            let mut rest = length - 127;
            bytes.push(127);
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).unwrap());
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn head(path: &str) -> Vec<u8> {
    head_of("GET", path)
}

fn head_of(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", HOST), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A setting and its value.
fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

struct Client(TcpStream);

impl Client {
    fn new(gibbon: &Gibbon) -> Self {
        let mut stream = TcpStream::connect(gibbon.address).unwrap();
        stream.set_read_timeout(Some(support::LIMIT)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).unwrap();
        self
    }

    /// Writes again and again, until the other side takes no more of it. Returns the bytes, and
    /// whether the connection has ended.
    fn flood(&mut self, bytes: &[u8], most: usize) -> (usize, bool) {
        let mut sent = 0;
        while sent < most {
            match self.0.write(bytes) {
                Ok(written) => sent += written,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return (sent, false);
                }
                Err(_) => return (sent, true),
            }
        }
        (sent, false)
    }

    /// The next frame; nothing at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next one of this kind, however many others come before it.
    fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// Waits for the end of the connection; returns the error that was given for it.
    fn end(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                error = Some(frame.error());
            }
        }
        error
    }
}

fn one(act: Act) -> (Member, Gibbon) {
    let app = Member::new(act);
    let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
    (app, gibbon)
}

/// Another client is served, and quickly.
fn others_are_served(gibbon: &Gibbon) {
    let before = Instant::now();
    assert_eq!(gibbon.get(HOST, "/").text(), "x");
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
}

#[test]
fn streams_that_are_reset_as_they_come_end_the_connection() {
    let (app, gibbon) = one(ok("x"));
    let mut client = Client::new(&gibbon);
    let flood: Vec<u8> = (0..1000)
        .flat_map(|number| [get(2 * number + 1), reset(2 * number + 1)].concat())
        .collect();
    client.flood(&flood, flood.len());
    let error = client.end();
    assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM)), "{error:?}");
    assert!(app.count() < 300, "the member got {} requests", app.count());
    others_are_served(&gibbon);
}

#[test]
fn streams_that_are_reset_once_they_are_at_a_member_end_the_connection_too() {
    let (app, gibbon) = one(Act::After(Duration::from_secs(1), Box::new(ok("x"))));
    let mut client = Client::new(&gibbon);
    client.0.set_nonblocking(false).unwrap();
    let mut begun = 0;
    for number in 0..2000 {
        let stream = 2 * number + 1;
        if client.0.write_all(&get(stream)).is_err() {
            break;
        }
        begun += 1;
        std::thread::sleep(Duration::from_millis(2));
        if client.0.write_all(&reset(stream)).is_err() {
            break;
        }
    }
    assert!(begun < 500, "{begun} streams were taken");
    eventually(|| (gibbon.metric("gibbon_connections_open") == Some(0.0)).then_some(()));
    let flooded = gibbon.metric("gibbon_refused_requests_total{reason=\"reset_flood\"}");
    assert_eq!(flooded, Some(1.0));
    assert!(app.count() < 500);
    assert_eq!(gibbon.metric("gibbon_member_failure_rate{"), Some(0.0));
}

#[test]
fn who_gives_up_now_and_then_goes_on() {
    let (_app, gibbon) = one(ok("x"));
    let mut client = Client::new(&gibbon);
    for number in 0..600 {
        let stream = 2 * number + 1;
        client.send(&get(stream));
        if number % 3 == 0 {
            client.send(&reset(stream));
            continue;
        }
        let end = |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
        assert!(std::iter::from_fn(|| client.next()).any(|frame| end(&frame)), "{stream}");
    }
}

#[test]
fn a_client_that_asks_for_answers_and_does_not_read_them_is_not_read_either() {
    // Each of these is to be answered with as much; what is not read may not grow in Gibbon.
    let window = [&frame(HEADERS, END_HEADERS, 1, &head("/"))[..]].concat();
    for (name, begin, flood) in [
        ("ping", Vec::new(), frame(PING, 0, 0, &[7; 8]).repeat(1000)),
        ("settings", Vec::new(), settings(4, 70_000).repeat(1000)),
        ("ping acknowledged", Vec::new(), frame(PING, ACK, 0, &[7; 8]).repeat(1000)),
        ("window", window.clone(), frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(1000)),
        ("empty data", window, frame(DATA, 0, 1, &[]).repeat(1000)),
        ("unknown", Vec::new(), frame(99, 0, 0, &[7; 8]).repeat(1000)),
    ] {
        let (_app, gibbon) = one(ok("x"));
        let mut client = Client::new(&gibbon);
        client.send(&begin);
        let most = 16 << 20;
        let before = resident();
        let (sent, ended) = client.flood(&flood, most);
        let grown = resident().saturating_sub(before);
        println!("{name}: {} MB taken, ended: {ended}, grown by {} MB", sent >> 20, grown >> 20);
        assert!(grown < 32 << 20, "{name}: {grown} bytes");
        others_are_served(&gibbon);
    }
}

/// What may be sent: on a new stream, and on the connection.
struct Windows {
    stream: i64,
    connection: i64,
}

impl Windows {
    /// As Gibbon's settings say, which are the first that it sends.
    fn of(client: &mut Client) -> Self {
        let settings = client.next_of(SETTINGS).unwrap().payload;
        let initial = settings.chunks(6).find(|setting| setting[..2] == [0, 4]).unwrap();
        client.send(&frame(SETTINGS, ACK, 0, &[]));
        Self { stream: number(&initial[2..]), connection: 65_535 }
    }

    /// Sends a body for as long as there is room. Returns what is left when there has been none for
    /// a while.
    fn upload(&mut self, client: &mut Client, stream: u32, mut left: usize) -> usize {
        let mut own = self.stream;
        client.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while left > 0 {
            let room = own.min(self.connection).min(16_384);
            if room <= 0 {
                let Some(frame) = client.next() else { break };
                match (frame.kind, frame.stream) {
                    (WINDOW_UPDATE, 0) => self.connection += number(&frame.payload),
                    (WINDOW_UPDATE, on) if on == stream => own += number(&frame.payload),
                    _ => {}
                }
                continue;
            }
            let part = usize::try_from(room).unwrap().min(left);
            client.send(&frame(DATA, 0, stream, &vec![b'x'; part]));
            left -= part;
            own -= i64::try_from(part).unwrap();
            self.connection -= i64::try_from(part).unwrap();
        }
        client.0.set_read_timeout(Some(support::LIMIT)).unwrap();
        left
    }
}

fn number(bytes: &[u8]) -> i64 {
    u32::from_be_bytes(bytes.try_into().unwrap()).into()
}

#[test]
fn uploads_that_their_member_does_not_take_hold_up_no_other() {
    // Accepts and reads nothing.
    let stalled = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let app = Member::new(ok("taken"));
    let gibbon = Gibbon::start(&join(&[
        balancer(&[member(app.address, "")], ""),
        named("stalled", "/stalled/", &[member(stalled.local_addr().unwrap(), "")], ""),
    ]));
    let mut client = Client::new(&gibbon);
    let mut windows = Windows::of(&mut client);
    for stream in [1, 3, 5] {
        client.send(&frame(HEADERS, END_HEADERS, stream, &head_of("POST", "/stalled/")));
        let left = windows.upload(&mut client, stream, 64 << 20);
        assert!(left > 0, "the member's buffers took all");
    }
    client.send(&frame(HEADERS, END_HEADERS, 7, &head_of("POST", "/")));
    assert_eq!(windows.upload(&mut client, 7, 400_000), 0);
    client.send(&frame(DATA, END_STREAM, 7, &[]));
    let answer = client.next_of(DATA).expect("an answer");
    assert_eq!((answer.stream, &answer.payload[..]), (7, &b"taken"[..]));
    assert_eq!(app.received()[0].body.len(), 400_000);
}

#[test]
fn a_head_without_an_end_is_cut_off() {
    let (app, gibbon) = one(ok("x"));
    for continuation in [field("x-more", &"y".repeat(1000)), Vec::new()] {
        let mut client = Client::new(&gibbon);
        client.send(&frame(HEADERS, END_STREAM, 1, &head("/")));
        let flood = frame(CONTINUATION, 0, 1, &continuation).repeat(64);
        let (sent, _) = client.flood(&flood, 64 << 20);
        client.end();
        assert!(sent < 16 << 20, "{sent} bytes were taken");
        others_are_served(&gibbon);
    }
    // Fields by reference cost a byte each and count for what they stand for.
    let mut bomb = head("/");
    bomb.push(0x40);
    bomb.extend(&field("x-bomb", &"y".repeat(3000))[1..]);
    bomb.extend([0xbe; 4000]);
    let mut client = Client::new(&gibbon);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
    let answer = client.next_of(HEADERS);
    assert!(answer.is_none_or(|answer| answer.flags & END_STREAM != 0));
    let asked = app.received();
    assert!(asked.iter().all(|request| request.header("x-bomb").is_none()));
    others_are_served(&gibbon);
}

#[test]
fn a_stream_too_many_is_refused_and_the_others_go_on() {
    let (app, gibbon) = one(Act::After(Duration::from_secs(1), Box::new(ok("x"))));
    let mut client = Client::new(&gibbon);
    let streams: Vec<u8> = (0..200).flat_map(|number| get(2 * number + 1)).collect();
    client.send(&streams);
    let (mut refused, mut answered) = (0, 0);
    while refused + answered < 200 {
        let frame = client.next().expect("the connection goes on");
        match frame.kind {
            RST_STREAM => {
                assert_eq!(frame.error(), REFUSED_STREAM);
                refused += 1;
            }
            HEADERS => answered += 1,
            _ => {}
        }
    }
    assert_eq!((answered, app.count()), (128, 128));
}

#[test]
fn at_the_end_clients_are_told_and_what_runs_is_finished() {
    let (app, mut gibbon) = one(Act::After(Duration::from_millis(500), Box::new(ok("late"))));
    let mut client = Client::new(&gibbon);
    client.send(&get(1));
    eventually(|| (app.count() == 1).then_some(()));
    gibbon.end(Duration::ZERO);
    let (mut told, mut body) = (false, Vec::new());
    while let Some(frame) = client.next() {
        match frame.kind {
            GOAWAY => {
                assert_eq!(frame.error(), 0);
                told = true;
            }
            DATA => body.extend(frame.payload),
            PING if frame.flags & ACK == 0 => {
                let answer = self::frame(PING, ACK, 0, &frame.payload);
                client.send(&answer);
            }
            _ => {}
        }
    }
    assert!(told);
    assert_eq!(body, b"late");
}

/// Bytes of memory that this process, and the Gibbon in it, has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
