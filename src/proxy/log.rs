//! The access log: one line a request, written by a thread of its own.
//!
//! A request's line is made where the request is served, its first part when the head is still there.
//! Lines wait together, and the thread takes all of them at once: to be woken for each, and to write each
//! by itself, would cost more than half of what a small request does.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::table::RuleId;

/// Bytes that may wait for a slow reader of the log before lines are dropped and counted.
const WAITING: usize = 4 << 20;

/// How long the first line waits for others, and what could not be written until it is tried again,
const PAUSE: Duration = Duration::from_millis(20);

/// if there are not so many bytes of them before: what is written is then still in the processor's cache.
const ENOUGH: usize = 32 << 10;

/// What most lines take.
const LINE: usize = 320;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What is known of a request before it is served.
#[derive(Clone, Debug, Serialize)]
pub struct Asked<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    #[serde(serialize_with = "method")]
    pub method: &'a Method,
    /// Host and port as the client wrote them.
    pub host: Cow<'a, str>,
    /// Path and query as the client wrote them.
    pub path: &'a str,
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// The trace that the request belongs to.
    #[serde(skip)]
    pub trace: Option<&'a str>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Served<'a> {
    /// The status sent; none if the client went away first.
    pub status: Option<u16>,
    /// The status of gRPC, if it was a call.
    pub grpc_status: Option<u8>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The rule that served it, `namespace/name`.
    pub balancer: Option<&'a RuleId>,
    /// The member that served it, or was asked last.
    pub member: Option<&'a str>,
    /// That member's address.
    pub address: Option<SocketAddr>,
    /// Attempts at members.
    pub attempts: usize,
    /// How the session fared.
    pub session: Option<&'static str>,
    /// From the member's being asked to its response head.
    pub latency: Option<Duration>,
    /// Why Gibbon answered itself.
    pub reason: Option<&'static str>,
    /// The response was cut off.
    pub cut: bool,
    /// What the request is called.
    pub id: &'a str,
}

fn method<S: Serializer>(method: &Method, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(method.as_str())
}

/// The first part of a line.
#[derive(Debug)]
pub struct Begun {
    text: String,
    trace: Option<Box<str>>,
}

// Writing to a String cannot fail.
impl Begun {
    fn text(asked: &Asked<'_>) -> Self {
        let mut text = String::with_capacity(LINE);
        let _ = write!(text, "{} \"{} ", asked.client, asked.method);
        quoted(&mut text, &asked.host);
        quoted(&mut text, asked.path);
        text.extend([" ", asked.protocol, "\""]);
        Self { text, trace: asked.trace.map(Into::into) }
    }

    fn json(asked: &Asked<'_>) -> Self {
        let text = object(Vec::with_capacity(LINE), asked);
        Self { text, trace: asked.trace.map(Into::into) }
    }

    fn end_text(self, served: &Served<'_>) -> String {
        let mut line = self.text;
        match served.status {
            Some(status) => number(&mut line, " ", status),
            None => line.push_str(" -"),
        }
        number(&mut line, " ", served.sent);
        millis(&mut line, " ", served.duration);
        match served.balancer {
            Some(rule) => line.extend([" ", &rule.namespace, "/", &rule.name]),
            None => line.push_str(" -"),
        }
        line.extend([" ", served.member.unwrap_or("-")]);
        match served.address {
            Some(address) => _ = write!(line, " {address}"),
            None => line.push_str(" -"),
        }
        number(&mut line, " attempts=", served.attempts);
        line.extend([" session=", served.session.unwrap_or("-")]);
        match served.latency {
            Some(latency) => millis(&mut line, " latency=", latency),
            None => line.push_str(" latency=-"),
        }
        line.extend([" id=", served.id]);
        if let Some(trace) = &self.trace {
            line.extend([" trace=", trace]);
        }
        if let Some(status) = served.grpc_status {
            number(&mut line, " grpc-status=", status);
        }
        if let Some(reason) = served.reason {
            line.extend([" reason=", reason]);
        }
        if served.cut {
            line.push_str(" cut");
        }
        line.push('\n');
        line
    }

    fn end_json(self, served: &Served<'_>) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Rest<'a> {
            status: Option<u16>,
            grpc_status: Option<u8>,
            received: u64,
            sent: u64,
            duration: f64,
            balancer: Option<Rule<'a>>,
            member: Option<&'a str>,
            address: Option<SocketAddr>,
            attempts: usize,
            session: Option<&'static str>,
            latency: Option<f64>,
            reason: Option<&'static str>,
            cut: bool,
            id: &'a str,
            trace: Option<&'a str>,
        }
        let rest = Rest {
            status: served.status,
            grpc_status: served.grpc_status,
            received: served.received,
            sent: served.sent,
            duration: served.duration.as_secs_f64(),
            balancer: served.balancer.map(Rule),
            member: served.member,
            address: served.address,
            attempts: served.attempts,
            session: served.session,
            latency: served.latency.map(|latency| latency.as_secs_f64()),
            reason: served.reason,
            cut: served.cut,
            id: served.id,
            trace: self.trace.as_deref(),
        };
        let mut line = self.text;
        // Two objects become one.
        line.pop();
        line.push(',');
        let begins = line.len();
        let mut line = object(line.into_bytes(), &rest);
        line.remove(begins);
        line.push('\n');
        line
    }
}

struct Rule<'a>(&'a RuleId);

impl Serialize for Rule<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self.0)
    }
}

/// Appends a JSON object.
fn object(mut to: Vec<u8>, value: &impl Serialize) -> String {
    serde_json::to_writer(&mut to, value).expect("strings and numbers, written to memory");
    String::from_utf8(to).expect("JSON is UTF-8")
}

/// Milliseconds with three places, the last of which is not rounded.
fn millis(line: &mut String, before: &str, duration: Duration) {
    let micros = duration.as_micros();
    number(line, before, micros / 1000);
    // The first digit keeps the zeros of the others.
    let places = line.len();
    number(line, "", 1000 + micros % 1000);
    line.replace_range(places..=places, ".");
    line.push_str("ms");
}

fn number(line: &mut String, before: &str, number: impl itoa::Integer) {
    line.extend([before, itoa::Buffer::new().format(number)]);
}

/// Leaves nothing that could end the quoted part of a line, or look like another field.
fn quoted(line: &mut String, text: &str) {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
        return line.push_str(text);
    }
    for char in text.chars() {
        match char {
            '"' => line.push_str("%22"),
            char if char.is_whitespace() || char.is_control() => line.push_str("%20"),
            char => line.push(char),
        }
    }
}

/// A second as text without its fraction, as many lines are of the same.
#[derive(Debug, Default)]
struct Second {
    at: Option<i64>,
    text: String,
}

impl Second {
    /// Writes a time to the millisecond, in RFC 3339.
    fn write(&mut self, to: &mut Vec<u8>, at: Timestamp) {
        if self.at != Some(at.as_second()) {
            self.at = Some(at.as_second());
            self.text.clear();
            let _ = write!(self.text, "{at:.0}");
            self.text.pop();
        }
        to.extend_from_slice(self.text.as_bytes());
        let places = to.len();
        // The first digit keeps the zeros of the others.
        let millis = 1000 + at.subsec_millisecond();
        to.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
        to[places] = b'.';
        to.push(b'Z');
    }
}

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    sender: Arc<Sender>,
}

/// Ends the thread when it is dropped.
#[derive(Debug)]
struct Sender(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// The first line has come, or enough of them, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    second: Second,
    ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl AccessLog {
    /// Starts the thread that writes to `out`; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        format: Format,
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let queue = Arc::<Queue>::default();
        let sender = Arc::new(Sender(Arc::clone(&queue)));
        let thread = std::thread::Builder::new().name("access-log".into());
        let thread = thread.spawn(move || write_all(&queue, out))?;
        Ok((Self { format, sender }, thread))
    }

    /// Begins a line, while what was asked is still there.
    #[must_use]
    pub fn begin(&self, asked: &Asked<'_>) -> Begun {
        match self.format {
            Format::Text => Begun::text(asked),
            Format::Json => Begun::json(asked),
        }
    }

    /// Writes a line; false if it had to be dropped.
    #[must_use]
    pub fn end(&self, begun: Begun, served: &Served<'_>) -> bool {
        let line = match self.format {
            Format::Text => begun.end_text(served),
            Format::Json => begun.end_json(served),
        };
        let queue = &self.sender.0;
        let mut waiting = queue.lock();
        if waiting.lines.len() + line.len() > WAITING {
            return false;
        }
        let Waiting { lines, second, .. } = &mut *waiting;
        let before = lines.len();
        // Taken under the lock, so that lines are in order.
        let now = Timestamp::now();
        match self.format {
            Format::Text => {
                second.write(lines, now);
                lines.push(b' ');
                lines.extend_from_slice(line.as_bytes());
            }
            Format::Json => {
                lines.extend_from_slice(b"{\"time\":\"");
                second.write(lines, now);
                lines.extend_from_slice(b"\",");
                lines.extend_from_slice(&line.as_bytes()[1..]);
            }
        }
        let after = lines.len();
        drop(waiting);
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            queue.changed.notify_one();
        }
        true
    }
}

/// Writes what waits, until the end.
fn write_all(queue: &Queue, mut out: impl Write) {
    let mut lines = Vec::new();
    loop {
        let waiting = queue.lock();
        let nothing = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.ended;
        let waiting = queue.changed.wait_while(waiting, nothing);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let goes_on = |waiting: &mut Waiting| waiting.lines.len() < ENOUGH && !waiting.ended;
        let paused = queue.changed.wait_timeout_while(waiting, PAUSE, goes_on);
        let (mut waiting, _) = paused.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut lines, &mut waiting.lines);
        let ended = waiting.ended && lines.is_empty();
        drop(waiting);
        if ended {
            return;
        }
        write_lines(queue, &mut out, &lines);
        lines.clear();
        // What waited while nobody read is not kept for good.
        lines.shrink_to(2 * ENOUGH);
    }
}

/// Writes all of it, however long that takes: what cannot be written, as where a disk is full, is tried again
/// from where it stopped, so that no line is torn. Meanwhile others wait, and then are dropped and counted.
/// At the end there is one try only.
fn write_lines(queue: &Queue, out: &mut impl Write, lines: &[u8]) {
    let mut rest = lines;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written @ 1..) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                let waiting = queue.lock();
                let goes_on = |waiting: &mut Waiting| !waiting.ended;
                let waited = queue.changed.wait_timeout_while(waiting, PAUSE, goes_on);
                if waited.unwrap_or_else(PoisonError::into_inner).0.ended {
                    break;
                }
            }
        }
    }
    // Who cannot be written to now can be at the next try.
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use serde_json::json;

    const ASKED: Asked<'_> = Asked {
        client: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)),
        method: &Method::GET,
        host: Cow::Borrowed("www.site.com"),
        path: "/a\"b\u{a0}\u{e9}",
        protocol: "HTTP/1.1",
        trace: Some("0af7"),
    };

    fn served(balancer: &RuleId) -> Served<'_> {
        Served {
            status: Some(200),
            grpc_status: Some(14),
            received: 0,
            sent: 12,
            duration: Duration::from_micros(1_007_050),
            balancer: Some(balancer),
            member: Some("app1"),
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            attempts: 2,
            session: Some("failover"),
            latency: Some(Duration::from_millis(5)),
            reason: None,
            cut: false,
            id: "4bf9",
        }
    }

    fn rule() -> RuleId {
        RuleId { namespace: "site".into(), name: "app".into() }
    }

    /// What is written of a line.
    fn written(format: Format, served: &Served<'_>) -> String {
        let (read, write) = UnixStream::pair().unwrap();
        let (log, thread) = AccessLog::start(format, write).unwrap();
        assert!(log.end(log.begin(&ASKED), served));
        drop(log);
        thread.join().unwrap();
        io::read_to_string(read).unwrap()
    }

    #[test]
    fn a_text_line_cannot_be_forged_by_a_quote_in_the_path() {
        let text = written(Format::Text, &served(&rule()));
        let (at, text) = text.split_once(' ').unwrap();
        assert!(Timestamp::now().duration_since(at.parse().unwrap()).as_secs() < 60, "{at}");
        assert_eq!(
            text,
            "203.0.113.9 \"GET www.site.com/a%22b%20\u{e9} HTTP/1.1\" 200 12 1007.050ms \
             site/app app1 127.0.0.1:8081 attempts=2 session=failover latency=5.000ms \
             id=4bf9 trace=0af7 grpc-status=14\n"
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let rule = rule();
        let own = Served {
            status: None,
            grpc_status: None,
            balancer: None,
            member: None,
            address: None,
            session: None,
            latency: None,
            reason: Some("deadline"),
            cut: true,
            ..served(&rule)
        };
        let text = written(Format::Text, &own);
        let (_, text) = text.split_once("HTTP/1.1\" ").unwrap();
        assert_eq!(
            text,
            "- 12 1007.050ms - - - attempts=2 session=- latency=- id=4bf9 trace=0af7 \
             reason=deadline cut\n"
        );
    }

    #[test]
    fn a_json_line_has_the_member_and_the_times() {
        let text = written(Format::Json, &served(&rule()));
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let time = value["time"].take();
        assert!(time.as_str().unwrap().parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(
            value,
            json!({
                "time": null, "client": "203.0.113.9", "method": "GET", "host": "www.site.com",
                "path": "/a\"b\u{a0}\u{e9}", "protocol": "HTTP/1.1", "status": 200,
                "grpcStatus": 14, "received": 0, "sent": 12, "duration": 1.00705,
                "balancer": "site/app", "member": "app1", "address": "127.0.0.1:8081",
                "attempts": 2, "session": "failover", "latency": 0.005, "reason": null,
                "cut": false, "id": "4bf9", "trace": "0af7",
            })
        );
    }

    #[test]
    fn times_are_told_to_the_millisecond() {
        let mut second = Second::default();
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (999, "1970-01-01T00:00:00.999Z"),
            (1_795_000_000_050, "2026-11-18T11:06:40.050Z"),
            (1_795_000_000_007, "2026-11-18T11:06:40.007Z"),
        ] {
            let mut written = Vec::new();
            second.write(&mut written, Timestamp::from_millisecond(at).unwrap());
            assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }

    #[test]
    fn lines_reach_the_writer_in_order_and_whole_and_some_are_dropped_where_nobody_reads() {
        let (read, write) = UnixStream::pair().unwrap();
        let (log, thread) = AccessLog::start(Format::Text, write).unwrap();
        let rule = rule();
        let mut kept = 0;
        while log.end(log.begin(&ASKED), &Served { received: 0, sent: kept, ..served(&rule) }) {
            kept += 1;
        }
        drop(log);
        let text = io::read_to_string(read).unwrap();
        thread.join().unwrap();
        let sent: Vec<u64> =
            text.lines().map(|line| line.split(' ').nth(6).unwrap().parse().unwrap()).collect();
        assert!(kept > 1000 && sent.iter().copied().eq(0..kept), "{kept} {}", sent.len());
    }

    /// Takes a few bytes at a time, and nothing while it is full.
    #[derive(Clone, Default)]
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        is_full: Arc<AtomicBool>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full.load(SeqCst) {
                return Err(ErrorKind::StorageFull.into());
            }
            let some = &bytes[..bytes.len().min(100)];
            self.written.lock().unwrap().extend_from_slice(some);
            self.is_full.store(self.written.lock().unwrap().len() == 100, SeqCst);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_written_when_there_is_room_again_and_no_line_is_torn() {
        let disk = Disk::default();
        let (log, thread) = AccessLog::start(Format::Json, disk.clone()).unwrap();
        let rule = rule();
        for sent in 0..20 {
            assert!(log.end(log.begin(&ASKED), &Served { sent, ..served(&rule) }));
            std::thread::sleep(Duration::from_millis(3));
        }
        while !disk.is_full.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        disk.is_full.store(false, SeqCst);
        let text = || String::from_utf8(disk.written.lock().unwrap().clone()).unwrap();
        while text().lines().count() < 20 || !text().ends_with('\n') {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(log);
        thread.join().unwrap();
        let text = text();
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let sent = text.lines().map(|text| line(text)["sent"].as_u64().unwrap());
        assert!(sent.eq(0..20), "{text}");
    }

    #[test]
    fn a_log_that_is_never_written_does_not_hold_up_the_end() {
        let disk = Disk::default();
        disk.is_full.store(true, SeqCst);
        let (log, thread) = AccessLog::start(Format::Text, disk).unwrap();
        assert!(log.end(log.begin(&ASKED), &served(&rule())));
        std::thread::sleep(2 * PAUSE);
        drop(log);
        thread.join().unwrap();
    }
}
