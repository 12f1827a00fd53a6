//! The program itself: signals and shutdown, `check`, `crd`, logs.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::json;
use support::authority::Authority;
use support::port::free;
use support::{Act, Client, Member, balancer, data, eventually, join, member, ok};

const GIBBON: &str = env!("CARGO_BIN_EXE_gibbon");

/// `gibbon serve` as a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
}

impl Process {
    fn start(name: &str, yaml: &str, flags: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("gibbon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("b.yaml"), yaml).unwrap();
        let [address, admin] = [free(), free()];
        let child = Command::new(GIBBON)
            .args(["serve", "--files", directory.to_str().unwrap(), "--workers", "2"])
            .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Self { child, address, admin, directory };
        eventually(|| TcpStream::connect(admin).ok());
        eventually(|| (process.page("/readyz") == 200).then_some(()));
        process
    }

    fn page(&self, path: &str) -> u16 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Client::new(self.admin).send(request).read().map_or(0, |seen| seen.status)
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    fn exit(&mut self) -> Option<i32> {
        eventually(|| self.child.try_wait().unwrap()).code()
    }

    fn output(&mut self) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (out, err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n";

#[test]
fn at_sigterm_it_goes_on_accepting_for_the_delay_and_then_finishes_what_runs() {
    let slow = Member::new(Act::After(Duration::from_secs(2), Box::new(ok("late"))));
    let yaml = balancer(&[member(slow.address, "")], "");
    let mut process = Process::start("term", &yaml, &["--shutdown-delay", "1s"]);
    process.signal("-TERM");
    eventually(|| (process.page("/readyz") == 503).then_some(()));
    let mut client = Client::new(process.address);
    client.send(GET);
    eventually(|| (slow.count() == 1).then_some(()));
    let seen = client.read().expect("the request is finished");
    assert_eq!((seen.status, seen.header("connection")), (200, Some("close")));
    assert!(TcpStream::connect(process.address).is_err());
    assert_eq!(process.exit(), Some(0));
}

#[test]
fn clients_that_leave_when_it_is_not_ready_lose_nothing() {
    let app = Member::new(ok("x"));
    let yaml = balancer(&[member(app.address, "")], "");
    let mut process = Process::start("leave", &yaml, &["--shutdown-delay", "1s"]);
    let (address, leave) = (process.address, Arc::new(AtomicBool::new(false)));
    let client = || {
        let leave = Arc::clone(&leave);
        std::thread::spawn(move || {
            let mut served = 0;
            while !leave.load(SeqCst) {
                let seen = Client::new(address).send(GET).read();
                assert_eq!(seen.map(|seen| seen.status), Some(200), "request {served} was lost");
                served += 1;
            }
        })
    };
    let clients = [(); 8].map(|()| client());
    eventually(|| (app.count() > 200).then_some(()));
    process.signal("-TERM");
    eventually(|| (process.page("/readyz") == 503).then_some(()));
    leave.store(true, SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(process.exit(), Some(0));
}

#[test]
fn a_tunnel_goes_on_until_the_grace_period_is_over() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let app = Member::new(Act::Echo(head.into()));
    let mut process = Process::start("tunnel", &balancer(&[member(app.address, "")], ""), &[]);
    let mut client = Client::new(process.address);
    client.send(GET.replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"));
    assert_eq!(client.read().unwrap().status, 101);
    process.signal("-TERM");
    eventually(|| TcpStream::connect(process.address).is_err().then_some(()));
    client.send("still there");
    let mut echo = [0; 11];
    client.read_exact(&mut echo);
    assert_eq!(&echo, b"still there");
    drop(client);
    assert_eq!(process.exit(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let app = Member::new(ok("x"));
    let mut process = Process::start("idle", &balancer(&[member(app.address, "")], ""), &[]);
    let mut client = Client::new(process.address);
    let mut resting = Client::new(process.address);
    assert_eq!(resting.send(GET).read().unwrap().status, 200);
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(client.send(GET).read().unwrap().status, 200);
    let silent = Client::new(process.address);
    let before = Instant::now();
    process.signal("-INT");
    assert_eq!(process.exit(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(client.is_closed() && resting.is_closed());
    drop(silent);
}

#[test]
fn what_does_not_end_in_time_is_cut_and_the_exit_code_is_0() {
    let silent = Member::new(Act::Silence);
    let yaml = balancer(&[member(silent.address, "")], "");
    let mut process = Process::start("cut", &yaml, &["--shutdown-grace", "300ms"]);
    let mut client = Client::new(process.address);
    client.send(GET);
    eventually(|| (silent.count() == 1).then_some(()));
    process.signal("-TERM");
    assert_eq!(process.exit(), Some(0));
    assert!(process.output().1.contains("cut"));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let silent = Member::new(Act::Silence);
    let yaml = balancer(&[member(silent.address, "")], "");
    let mut process = Process::start("second", &yaml, &["--shutdown-grace", "1h"]);
    let mut client = Client::new(process.address);
    client.send(GET);
    eventually(|| (silent.count() == 1).then_some(()));
    process.signal("-TERM");
    eventually(|| (process.page("/readyz") == 503).then_some(()));
    process.signal("-TERM");
    assert_eq!(process.exit(), Some(1));
}

#[test]
fn the_access_log_has_a_line_a_request() {
    let app = Member::new(ok("hello"));
    let yaml = balancer(&[member(app.address, "name: one")], "");
    let mut process = Process::start("log", &yaml, &["--access-log", "json"]);
    Client::new(process.address).send(GET).read().unwrap();
    let unknown = "GET /x HTTP/1.1\r\nHost: other.org\r\n\r\n";
    Client::new(process.address).send(unknown).read().unwrap();
    let call = "POST /x HTTP/1.1\r\nHost: other.org\r\nContent-Type: application/grpc\r\n\r\n";
    Client::new(process.address).send(call).read().unwrap();
    let user = "GET http://ann:SECRET@www.site.com/ HTTP/1.1\r\nHost: www.site.com\r\n\r\n";
    Client::new(process.address).send(user).read().unwrap();
    process.signal("-TERM");
    process.exit();
    let (out, _) = process.output();
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert_eq!(lines[3]["host"], "***@www.site.com");
    assert_eq!(lines[0]["status"], 200);
    assert_eq!(lines[0]["balancer"], "site/app");
    assert_eq!(lines[0]["member"], "one");
    assert_eq!(lines[0]["address"], app.address.to_string());
    assert_eq!((&lines[0]["attempts"], &lines[0]["session"]), (&1.into(), &"new".into()));
    assert_eq!((&lines[0]["sent"], &lines[0]["cut"]), (&5.into(), &false.into()));
    assert!(lines[0]["latency"].as_f64().unwrap() <= lines[0]["duration"].as_f64().unwrap());
    assert_eq!((&lines[1]["status"], &lines[1]["reason"]), (&404.into(), &"unknown_host".into()));
    assert_eq!((&lines[1]["grpcStatus"], &lines[2]["grpcStatus"]), (&json!(null), &json!(12)));
}

#[test]
fn the_access_log_has_the_ids_that_client_and_member_have() {
    let app = Member::new(ok("hello"));
    let yaml = balancer(&[member(app.address, "")], "");
    let flags = ["--access-log", "json", "--traceparent", "unsampled"];
    let mut process = Process::start("ids", &yaml, &flags);
    let mut client = Client::new(process.address);
    let given = "GET / HTTP/1.1\r\nHost: www.site.com\r\nX-Request-Id: given-1\r\n\r\n";
    let unknown = "GET / HTTP/1.1\r\nHost: other.org\r\n\r\n";
    let answers = [given, GET, unknown].map(|request| client.send(request).read().unwrap());
    process.signal("-TERM");
    process.exit();
    let (out, _) = process.output();
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for (line, answer) in lines.iter().zip(&answers) {
        assert_eq!(line["id"].as_str(), answer.header("x-request-id"));
    }
    assert_eq!((lines.len(), &lines[0]["id"]), (3, &"given-1".into()));
    for (line, received) in lines.iter().zip(app.received()) {
        assert_eq!(line["id"].as_str(), received.header("x-request-id"));
        let parent = received.header("traceparent").unwrap();
        assert_eq!(line["trace"].as_str(), parent.split('-').nth(1));
        assert!(parent.ends_with("-00"), "{parent}");
    }
}

#[test]
fn failing_requests_take_no_more_memory_than_those_that_are_kept() {
    let yaml = balancer(&[member(SocketAddr::from(([127, 0, 0, 1], 1)), "")], "");
    let process = Process::start("memory", &yaml, &["--explain-keep", "100"]);
    let mut client = Client::new(process.address);
    let long = "a".repeat(4000);
    let mut fail = |times: u32| {
        for number in 0..times {
            let fields =
                format!("X-Request-Id: f{number}\r\nUser-Agent: {long}\r\nReferer: {long}");
            let request =
                format!("GET /{long}?{long} HTTP/1.1\r\nHost: www.site.com\r\n{fields}\r\n\r\n");
            assert_eq!(client.send(request).read().unwrap().status, 503);
        }
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let (early, late) = (fail(1000), fail(10_000));
    assert!(late < early + (4 << 20), "{early} bytes, then {late}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let app = Member::new(ok("hello"));
    let yaml = balancer(&[member(app.address, "")], "");
    let mut process = Process::start("unread", &yaml, &["--access-log", "text"]);
    let mut client = Client::new(process.address);
    for _ in 0..3000 {
        assert_eq!(client.send(GET).read().unwrap().status, 200);
    }
    process.signal("-TERM");
    assert_eq!(process.exit(), Some(0));
}

#[test]
fn redirects_to_tls_that_nobody_speaks_are_told_of() {
    let yaml = balancer(&[member(Member::dead(), "")], "tls: {}");
    for (flags, told) in [(&[][..], true), (&["--trusted-proxies", "10.0.0.0/8"], false)] {
        let process = Process::start("nowhere", &yaml, flags);
        let page = "GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n";
        let seen = Client::new(process.admin).send(page).read().unwrap();
        let said = "site/app: spec.tls.redirect: clients are sent to https, which nobody speaks";
        assert_eq!((seen.status, seen.text().contains(said)), (200, told), "{}", seen.text());
    }
}

#[test]
fn an_address_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(GIBBON)
        .args(["serve", "--files", ".", "--listen", &address, "--admin", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains(&format!("--listen {address}")), "{text}");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let output = Command::new(GIBBON)
        .args(["serve", "--files", "/nowhere/at/all", "--listen", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("/nowhere/at/all"), "{text}");
}

/// Reads one request with a body of this length, forgets it, and answers.
fn sink(length: u64) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone().unwrap());
        support::read_head(&mut reader).unwrap();
        let read = std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
        stream.write_all(&support::response("200 OK", &[], &read.to_string())).unwrap();
    });
    address
}

#[test]
fn a_gibibyte_goes_to_the_member_that_takes_over_and_is_not_kept() {
    let length = 1 << 30;
    let members = [member(Member::dead(), "route: dead"), member(sink(length), "route: sink")];
    let process = Process::start("large", &balancer(&members, "sticky: {cookie: s}"), &[]);
    let mut client = Client::new(process.address);
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nCookie: s=dead\r\n");
    client.send(format!("Content-Length: {length}\r\n\r\n"));
    let block = vec![7; 1 << 20];
    for _ in 0..length >> 20 {
        client.send(&block);
    }
    let seen = client.read().expect("an answer");
    assert_eq!((seen.status, seen.text()), (200, length.to_string()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB");
}

#[test]
fn the_demo_shows_lines_where_there_is_no_terminal_and_ends_by_itself() {
    let [address, admin] = [free(), free()];
    let mut demo = Command::new(GIBBON)
        .args(["demo", "--for", "6s", "--listen", &address.to_string()])
        .args(["--admin", &admin.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(|| TcpStream::connect(address).ok());
    let ask = |path: &str, more: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: www.site.com\r\n{more}Connection: close\r\n\r\n");
        Client::new(address).send(request).read().unwrap()
    };
    eventually(|| (ask("/", "").status == 200).then_some(()));
    let login = ask("/login", "Cookie: sessionid=x!app2\r\n");
    assert_eq!(login.header("location"), Some("http://www.site.com/welcome"));
    let new = ask("/", "");
    let cookie = new.header("set-cookie").unwrap();
    assert!(cookie.contains("!app") && cookie.contains("Domain=www.site.com"), "{cookie}");
    assert!(ask("/static/a.png", "").text().contains("/media/a.png"));
    assert!(eventually(|| demo.try_wait().unwrap()).success());
    let mut out = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.contains("curl -i --resolve www.site.com:"), "{out}");
    assert!(out.lines().last().unwrap().contains(" 0 errors seen"), "{out}");
}

fn check(path: &PathBuf) -> (Output, String) {
    let output = Command::new(GIBBON).arg("check").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[test]
fn check_refuses_each_bad_balancer_with_file_line_and_field() {
    let mut seen = 0;
    for entry in std::fs::read_dir(data("balancers/bad")).unwrap() {
        let path = entry.unwrap().path();
        let comments: Vec<String> = BufReader::new(std::fs::File::open(&path).unwrap())
            .lines()
            .map_while(Result::ok)
            .take_while(|line| line.starts_with('#'))
            .collect();
        let (output, text) = check(&path);
        assert_eq!(output.status.code(), Some(1), "{}: {text}", path.display());
        let wanted = |what: &str| {
            let prefix = format!("# {what}: ");
            comments
                .iter()
                .find_map(|line| line.strip_prefix(&prefix))
                .unwrap_or_default()
                .to_owned()
        };
        let (field, message) = (wanted("field"), wanted("message"));
        assert!(!field.is_empty() && !message.is_empty(), "{} says nothing", path.display());
        let line = text.lines().find(|line| line.contains(&format!(" {field}: ")));
        let line = line.unwrap_or_else(|| panic!("{}: no {field} in {text}", path.display()));
        assert!(line.starts_with(&format!("{}:", path.display())), "{line}");
        assert!(line.contains(&message), "{}: {line}", path.display());
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn check_looks_at_the_secrets_that_are_in_the_files() {
    let authority = Authority::new();
    let rule = balancer(
        &[member(Member::dead(), "")],
        "tls: {secretName: www, clientCASecret: elsewhere}\nupstreamTLS: {caSecret: own}",
    );
    let own = "apiVersion: v1\nkind: Secret\nmetadata: {name: own, namespace: site}\nstringData: {ca.crt: x}\n";
    for (secrets, said) in [
        (vec![], None),
        (vec![authority.secret("www", &["www.site.com"])], None),
        (
            vec![authority.secret("www", &["site.com"])],
            Some(
                "site/app: spec.tls.secretName: Secret site/www: its certificate is not for www.site.com",
            ),
        ),
        (
            vec![own.to_owned()],
            Some(
                "site/app: spec.upstreamTLS.caSecret: Secret site/own: its ca.crt has no certificate",
            ),
        ),
    ] {
        let path = std::env::temp_dir().join(format!("gibbon-secrets-{}.yaml", std::process::id()));
        std::fs::write(&path, join(&[secrets, vec![rule.clone()]].concat())).unwrap();
        let (output, out) = check(&path);
        assert_eq!(output.status.success(), said.is_none(), "{out}");
        assert!(said.is_none_or(|said| out.contains(said)), "{out}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn check_of_nothing_is_a_fault() {
    let (output, text) = check(&data("support"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no YAML file"), "{text}");
}

#[test]
fn check_accepts_each_good_balancer_and_every_example() {
    let good =
        std::fs::read_dir(data("balancers/good")).unwrap().map(|entry| entry.unwrap().path());
    for path in good.chain([data("../examples/site")]) {
        let (output, text) = check(&path);
        if path.ends_with("service.yaml") {
            let faults: Vec<_> = text.lines().filter(|line| line.contains(" spec.")).collect();
            assert!(
                faults.len() == 2 && faults.iter().all(|f| f.contains("in a cluster only")),
                "{text}"
            );
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{text}");
        let warns = text.contains("warning: spec.upstreamTLS.insecureSkipVerify: nobody verifies");
        assert_eq!(warns, path.ends_with("upstream-tls-anybody.yaml"), "{text}");
        assert!(text.contains("; faults: 0"), "{text}");
    }
}

#[test]
fn the_committed_definition_is_what_crd_prints() {
    let output = Command::new(GIBBON).arg("crd").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let committed = std::fs::read_to_string(data("../crds/balancer.yaml")).unwrap();
    assert!(printed == committed, "run: gibbon crd > crds/balancer.yaml");
}
