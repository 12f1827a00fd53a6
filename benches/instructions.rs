//! User-space instructions that a request costs, counted by callgrind: the slope between a short and a
//! long run of the program itself, so that its start and end do not count. It does not depend on what
//! else the machine does, and repeats to a fraction of a percent.
//!
//! `cargo bench --bench instructions` compares with the figures in `benches/instructions/known.json`
//! and fails where one has grown or shrunk by more than 3 %, as `.ci/run` does; `-- --bless` writes them
//! anew. `-- --keep FOLDER` leaves the profiles there, for `callgrind_annotate`. The figures are of
//! processors with AVX2, which valgrind knows, whatever else a processor can.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

#[path = "../tests/support/port.rs"]
mod port;

const KNOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/known.json");
const ACCEPT: &str =
    "run `cargo bench --bench instructions -- --bless` and commit benches/instructions/known.json.";
/// How far a figure may be from the known one, in percent.
const TOLERANCE: f64 = 3.0;
/// Clients' connections, each with one request at a time.
const CONNECTIONS: usize = 16;
/// Rounds in which each connection has one request: the short run, and the long one.
const ROUNDS: [usize; 2] = [10, 110];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line.
#[derive(Debug, Parser)]
struct Options {
    /// Writes the figures instead of comparing them
    #[arg(long)]
    bless: bool,
    /// Keeps the profiles of the long runs in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Only these cases
    #[arg(long)]
    case: Vec<String>,
    /// The program to measure instead of this build's
    #[arg(long)]
    program: Option<PathBuf>,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is asked, and how a member answers it.
struct Case {
    name: &'static str,
    request: Vec<u8>,
    answer: Vec<u8>,
    members: usize,
}

/// An answer with the fields that nginx gives a file.
fn answer(status: &str, more: &str, body: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {body}\r\n\
         Last-Modified: Tue, 24 Nov 2026 11:00:00 GMT\r\nConnection: keep-alive\r\n\
         ETag: \"6564a1b2-400\"\r\nAccept-Ranges: bytes\r\n{more}\r\n"
    );
    [head.into_bytes(), vec![b'x'; body]].concat()
}

fn cases() -> Vec<Case> {
    let case = |name, request, answer| Case { name, request, answer, members: 2 };
    // What load generators send, and little servers answer.
    let small = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let head = "Host: www.site.com\r\nUser-Agent: bench\r\nAccept: */*\r\n";
    let session = "Cookie: theme=dark; sessionid=4c1fd4a5d5c8!app1\r\n";
    let get = |more: &str| format!("GET /shop/item?id=1 HTTP/1.1\r\n{head}{more}\r\n").into_bytes();
    let post = format!("POST /shop/buy HTTP/1.1\r\n{head}Content-Length: 1024\r\n\r\n");
    let elsewhere = "Location: http://127.0.0.1:8080/shop/next\r\n\
                     Set-Cookie: sessionid=4c1fd4a5d5c8!app1; Path=/shop; Domain=127.0.0.1\r\n";
    vec![
        case("small", b"GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n".to_vec(), small),
        case("get", get(""), answer("200 OK", "", 1024)),
        case("session", get(session), answer("200 OK", "", 1024)),
        case("reversal", get(session), answer("302 Found", elsewhere, 0)),
        case("post", [post.into_bytes(), vec![b'y'; 1024]].concat(), answer("200 OK", "", 1024)),
        Case { members: 10, ..case("members", get(""), answer("200 OK", "", 1024)) },
    ]
}

/// Answers each request, however many connections there are.
fn member(request: usize, answer: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, request, &answer));
        }
    });
    Ok(address)
}

/// Requests end with an empty line, and those with a body with so many bytes more.
fn serve(mut stream: TcpStream, body: usize, answer: &[u8]) {
    let _unimportant = stream.set_nodelay(true);
    let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..read]);
        while let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") {
            if kept.len() < end + 4 + body {
                break;
            }
            kept.drain(..end + 4 + body);
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// A rule with all that an ordinary one has: a session's cookie, reversal, an edit of each kind.
fn balancer(members: &[SocketAddr]) -> String {
    let mut yaml = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\n\
                    metadata: {name: shop, namespace: site}\nspec:\n  hosts: [www.site.com]\n\
                    \x20 path: /\n  sticky: {cookie: sessionid, routeRegex: '!(.+)$'}\n  members:\n"
        .to_owned();
    for (number, address) in members.iter().enumerate() {
        let _ = writeln!(yaml, "  - {{url: 'http://{address}/', route: app{number}}}");
    }
    yaml
}

/// Ends with the value.
struct Running(Child);

impl Running {
    /// Asks it to end, as the profile is written then.
    fn end(mut self) -> Result<()> {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let began = Instant::now();
        while self.0.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                bail!("the program did not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a case for so many rounds; returns the instructions of the whole process.
fn run(case: &Case, rounds: usize, program: &Path, profile: &Path) -> Result<f64> {
    let folder = profile.with_extension("files");
    std::fs::create_dir_all(&folder)?;
    let head = case.request.windows(4).position(|four| four == b"\r\n\r\n");
    let body = case.request.len() - head.context("a request has a head")? - 4;
    let members = (0..case.members).map(|_| member(body, case.answer.clone()));
    let members = members.collect::<Result<Vec<_>>>()?;
    std::fs::write(folder.join("balancer.yaml"), balancer(&members))?;
    let (address, admin) = (port::free(), port::free());
    let child = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--dump-line=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["serve", "--workers", "1", "--log", "error", "--shutdown-delay", "0s"])
        .arg("--files")
        .arg(&folder)
        .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("valgrind cannot be run; `apt-get install valgrind` installs it")?;
    let running = Running(child);
    let began = Instant::now();
    while TcpStream::connect(admin).is_err() || !is_ready(address, &case.request) {
        if began.elapsed() > PATIENCE {
            bail!("the program did not become ready");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    load(address, case, rounds)?;
    running.end()?;
    let text = std::fs::read_to_string(profile)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    std::fs::remove_dir_all(&folder)?;
    Ok(total.context("the profile has no total")?.trim().parse()?)
}

fn is_ready(address: SocketAddr, request: &[u8]) -> bool {
    let asked = || -> Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(!start.ends_with(b"503"))
    };
    asked().unwrap_or(false)
}

/// Each connection has a request in each round; all are sent before the first answer is read.
fn load(address: SocketAddr, case: &Case, rounds: usize) -> Result<()> {
    let connect = |_| -> Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut streams = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for stream in &mut streams {
            stream.write_all(&case.request)?;
        }
        for stream in &mut streams {
            read_answer(stream)?;
        }
    }
    Ok(())
}

/// Reads one answer to its end, which its Content-Length tells.
fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            bail!("the connection ended: {}", String::from_utf8_lossy(&kept));
        }
        kept.extend_from_slice(&buffer[..read]);
        let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&kept[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") && !head.starts_with("http/1.1 302") {
            bail!("an unexpected answer: {head}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no Content-Length")?.trim().parse()?;
        if kept.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

fn measure(case: &Case, options: &Options) -> Result<f64> {
    let program = options.program.clone();
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_gibbon").into());
    let own = std::env::temp_dir().join(format!("gibbon-instructions-{}", std::process::id()));
    let folder = options.keep.clone().unwrap_or_else(|| own.clone());
    std::fs::create_dir_all(&folder)?;
    let mut totals = [0.0; 2];
    for (total, rounds) in totals.iter_mut().zip(ROUNDS) {
        *total = run(case, rounds, &program, &folder.join(format!("{}.{rounds}", case.name)))?;
    }
    if options.keep.is_none() {
        std::fs::remove_dir_all(&own)?;
    }
    let requests = (ROUNDS[1] - ROUNDS[0]) * CONNECTIONS;
    Ok((totals[1] - totals[0]) / requests as f64)
}

fn main() -> Result<ExitCode> {
    // `cargo test --all-targets` runs it too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let known: BTreeMap<String, f64> = match std::fs::read_to_string(KNOWN) {
        Ok(text) => serde_json::from_str(&text).context(KNOWN)?,
        Err(_) if options.bless => BTreeMap::new(),
        Err(error) => return Err(error).context(KNOWN),
    };
    println!("| case | instructions a request | known | change |\n|---|--:|--:|--:|");
    let mut found = known.clone();
    let (mut more, mut fewer) = (Vec::new(), Vec::new());
    let wanted =
        |case: &Case| options.case.is_empty() || options.case.iter().any(|name| name == case.name);
    for case in cases().iter().filter(|case| wanted(case)) {
        let now = measure(case, &options)?;
        let before = known.get(case.name).copied();
        let change = before.map(|before| (now / before - 1.0) * 100.0);
        println!(
            "| {} | {now:.0} | {} | {} |",
            case.name,
            before.map_or_else(|| "-".to_owned(), |before| format!("{before:.0}")),
            change.map_or_else(|| "-".to_owned(), |change| format!("{change:+.1} %")),
        );
        match change {
            Some(change) if change < -TOLERANCE => fewer.push(case.name),
            Some(change) if change <= TOLERANCE => {}
            _ => more.push(case.name),
        }
        found.insert(case.name.to_owned(), now.round());
    }
    if options.bless {
        std::fs::write(KNOWN, serde_json::to_string_pretty(&found)? + "\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !more.is_empty() {
        eprintln!(
            "{} cost over {TOLERANCE} % more instructions than is known, or are not known. Where they go: \
             `cargo bench --bench instructions -- --keep FOLDER`, then `callgrind_annotate FOLDER/CASE.{}`. \
             If they are worth it: {ACCEPT}",
            more.join(", "),
            ROUNDS[1]
        );
    }
    if !fewer.is_empty() {
        eprintln!(
            "{} cost over {TOLERANCE} % less, which is to stay so: {ACCEPT}",
            fewer.join(", ")
        );
    }
    let is_well = more.is_empty() && fewer.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
