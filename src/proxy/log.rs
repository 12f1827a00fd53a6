//! The access log: one line a request, written by a thread of its own.

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

/// Lines that may wait for a slow reader of the log before some are dropped and counted.
const WAITING: usize = 16_384;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What is known of a request before it is served.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// Host and port as the client wrote them.
    pub host: String,
    /// Path and query as the client wrote them.
    pub path: String,
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// The trace that the request belongs to.
    pub trace: Option<Box<str>>,
}

/// One request, served.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was asked.
    pub asked: Asked,
    /// What the request is called.
    pub id: String,
    /// The rule that served it, `namespace/name`.
    pub balancer: Option<String>,
    /// The member that served it, or was asked last.
    pub member: Option<Arc<str>>,
    /// That member's address.
    pub address: Option<SocketAddr>,
    /// Attempts at members.
    pub attempts: usize,
    /// How the session fared.
    pub session: Option<&'static str>,
    /// The status sent; none if the client went away first.
    pub status: Option<u16>,
    /// The status of gRPC, if it was a call.
    pub grpc_status: Option<u8>,
    /// Why Gibbon answered itself.
    pub reason: Option<&'static str>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// From the member's being asked to its response head.
    pub latency: Option<Duration>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The response was cut off.
    pub cut: bool,
}

impl Line {
    fn text(&self, at: Timestamp) -> String {
        let mut line = format!(
            "{at:.3} {} \"{} {}{} {}\" {} {} {}",
            self.asked.client,
            self.asked.method,
            quoted(&self.asked.host),
            quoted(&self.asked.path),
            self.asked.protocol,
            self.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            self.sent,
            millis(self.duration),
        );
        let dash = || "-".to_owned();
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " {} {} {} attempts={} session={} latency={} id={}",
            self.balancer.as_deref().unwrap_or("-"),
            self.member.as_deref().unwrap_or("-"),
            self.address.map_or_else(dash, |address| address.to_string()),
            self.attempts,
            self.session.unwrap_or("-"),
            self.latency.map_or_else(dash, millis),
            self.id,
        );
        if let Some(trace) = &self.asked.trace {
            let _ = write!(line, " trace={trace}");
        }
        if let Some(status) = self.grpc_status {
            let _ = write!(line, " grpc-status={status}");
        }
        if let Some(reason) = self.reason {
            let _ = write!(line, " reason={reason}");
        }
        if self.cut {
            line.push_str(" cut");
        }
        line.push('\n');
        line
    }

    fn json(&self, at: Timestamp) -> String {
        let line = json!({
            "time": format!("{at:.3}"),
            "client": self.asked.client.to_string(),
            "method": self.asked.method,
            "host": self.asked.host,
            "path": self.asked.path,
            "protocol": self.asked.protocol,
            "status": self.status,
            "grpcStatus": self.grpc_status,
            "received": self.received,
            "sent": self.sent,
            "duration": self.duration.as_secs_f64(),
            "balancer": self.balancer,
            "member": self.member.as_deref(),
            "address": self.address,
            "attempts": self.attempts,
            "session": self.session,
            "latency": self.latency.map(|latency| latency.as_secs_f64()),
            "reason": self.reason,
            "cut": self.cut,
            "id": self.id,
            "trace": self.asked.trace.as_deref(),
        });
        format!("{line}\n")
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.3}ms", duration.as_secs_f64() * 1e3)
}

/// Leaves nothing that could end the quoted part of a line, or look like another field.
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace(|c: char| c.is_whitespace() || c.is_control(), "%20")
}

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    lines: SyncSender<String>,
}

impl AccessLog {
    /// Starts the thread that writes to `out`; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        format: Format,
        out: impl Write + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (lines, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("access-log".into());
        let thread = thread.spawn(move || write_all(&waiting, out))?;
        Ok((Self { format, lines }, thread))
    }

    /// Writes a line; false if it had to be dropped.
    #[must_use]
    pub fn write(&self, line: &Line) -> bool {
        let now = Timestamp::now();
        let text = match self.format {
            Format::Text => line.text(now),
            Format::Json => line.json(now),
        };
        self.lines.try_send(text).is_ok()
    }
}

/// Writes what waits, and flushes when nothing does.
fn write_all(waiting: &Receiver<String>, out: impl Write) {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, out);
    while let Ok(line) = waiting.recv() {
        // A log that cannot be written must not stop the service.
        let _ = out.write_all(line.as_bytes());
        while let Ok(line) = waiting.try_recv() {
            let _ = out.write_all(line.as_bytes());
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            asked: Asked {
                client: IpAddr::from([203, 0, 113, 9]),
                method: "GET".into(),
                host: "www.site.com".into(),
                path: "/a\"b".into(),
                protocol: "HTTP/1.1",
                trace: Some("0af7".into()),
            },
            id: "4bf9".into(),
            balancer: Some("site/app".into()),
            member: Some("app1".into()),
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            attempts: 2,
            session: Some("failover"),
            status: Some(200),
            grpc_status: Some(14),
            reason: None,
            received: 0,
            sent: 12,
            latency: Some(Duration::from_millis(5)),
            duration: Duration::from_millis(7),
            cut: false,
        }
    }

    #[test]
    fn a_text_line_cannot_be_forged_by_a_quote_in_the_path() {
        let text = line().text(Timestamp::UNIX_EPOCH);
        assert!(text.contains("\"GET www.site.com/a%22b HTTP/1.1\" 200 12 7.000ms"), "{text}");
        assert!(
            text.contains("site/app app1 127.0.0.1:8081 attempts=2 session=failover"),
            "{text}"
        );
        assert!(text.ends_with(" latency=5.000ms id=4bf9 trace=0af7 grpc-status=14\n"), "{text}");
    }

    #[test]
    fn a_json_line_has_the_member_and_the_times() {
        let text = line().json(Timestamp::UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["member"], &value["address"]),
            (&json!("app1"), &json!("127.0.0.1:8081"))
        );
        assert_eq!(value["latency"], 0.005);
        assert_eq!((&value["attempts"], &value["grpcStatus"]), (&json!(2), &json!(14)));
        assert_eq!((&value["id"], &value["trace"]), (&json!("4bf9"), &json!("0af7")));
    }

    #[test]
    fn lines_reach_the_writer_in_order() {
        let (read, write) = std::os::unix::net::UnixStream::pair().unwrap();
        let (log, thread) = AccessLog::start(Format::Text, write).unwrap();
        assert!(log.write(&line()));
        assert!(log.write(&Line { status: None, ..line() }));
        drop(log);
        thread.join().unwrap();
        let text = std::io::read_to_string(read).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().contains("\" - 12"), "{text}");
    }
}
