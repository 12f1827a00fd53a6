//! Real programs as clients: curl, openssl, h2load, h2spec, testssl.sh, and a browser at the demo's site.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{SinkExt, StreamExt};
use gibbon::table::tls::SecretId;
use rcgen::{
    CertificateParams, CrlDistributionPoint, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd,
};
use serde_json::{Value, json};
use support::authority::Authority;
use support::port::free;
use support::{
    Act, Client, Gibbon, Member, Options, balancer, ca_secret, eventually, join, member, named,
    response, secret_of,
};
use tokio_tungstenite::tungstenite::Message;

const HOST: &str = "www.site.com";

/// A directory of the test's own, with files that programs read.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gibbon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }

    /// Runs a program to its end. tests/run installs what is missing.
    fn run(&self, program: &str, arguments: &str, input: &str) -> Output {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        let child = Command::new(program)
            .args(&arguments)
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("{program} cannot be run; use tests/run: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        // It may not want it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// What it prints, if it is content.
    fn printed(&self, program: &str, arguments: &str, input: &str) -> String {
        let output = self.run(program, arguments, input);
        let (out, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments}: {out}{complaint}");
        out.into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A member that says the same however often it is asked, and as a browser would like it.
fn app() -> Member {
    let fields = [
        ("Content-Security-Policy", "default-src 'self'"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
    ];
    Member::new(Act::Write(response("200 OK", &fields, "hello")))
}

/// A Secret with a certificate such as a public authority would give.
fn proper(authority: &Authority) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    params.not_before = date_time_ymd(1970, 1, 1) + now - day;
    params.not_after = params.not_before + 90 * day;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let uris = vec!["http://crl.example.org/ca.crl".to_owned()];
    params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
    secret_of("www", &authority.sign(&params, &key).pem(), &key.serialize_pem())
}

#[test]
fn curl_speaks_every_version_with_tls_and_without() {
    let (app, authority, clients) = (app(), Authority::new(), Authority::new());
    let members = [member(app.address, "")];
    let gibbon = Gibbon::start(&join(&[
        authority.secret("www", &[HOST]),
        authority.secret("mtls", &["mtls.site.com"]),
        ca_secret("ca", &clients.certificate.pem()),
        balancer(&members, "tls: {secretName: www, redirect: false}"),
        named("mtls", "/", &members, "tls: {secretName: mtls, clientCASecret: ca}")
            .replace(HOST, "mtls.site.com"),
    ]));
    let directory = Directory::new("curl");
    let (certificate, key) = clients.client_pem("ann");
    directory
        .file("ca.pem", &authority.certificate.pem())
        .file("ann.pem", &certificate)
        .file("ann.key", &key);
    let (plain, secure) = (gibbon.address, gibbon.secure);
    let curl = |flags: &str, url: &str| {
        let arguments = format!(
            "-sS --max-time 20 --cacert ca.pem --connect-to ::{secure} -w \\n%{{http_version}} {flags} {url}"
        );
        directory.run("curl", &arguments, "")
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    for (flags, version) in [
        ("--http1.0", "1"),
        ("--http1.1", "1.1"),
        ("--http2", "2"),
        ("--http2 --tls-max 1.2", "2"),
        ("--http1.1 --tlsv1.3", "1.1"),
    ] {
        let output = curl(flags, "https://www.site.com/");
        assert_eq!(said(&output), format!("hello\n{version}"), "{flags}: {output:?}");
    }
    for (flags, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let arguments = format!(
            "-sS --connect-to ::{plain} -w \\n%{{http_version}} {flags} http://www.site.com/"
        );
        let output = directory.printed("curl", &arguments, "");
        assert_eq!(output, format!("hello\n{version}"), "{flags}");
    }
    // Exit status 35: no handshake. 56: the connection ends when the certificate is missed.
    assert_eq!(curl("", "https://other.org/").status.code(), Some(35));
    assert_eq!(curl("--tls-max 1.1", "https://www.site.com/").status.code(), Some(35));
    let without = curl("", "https://mtls.site.com/").status.code();
    assert!(matches!(without, Some(16 | 35 | 55 | 56)), "{without:?}");
    let ann = "--cert ann.pem --key ann.key";
    assert_eq!(said(&curl(ann, "https://mtls.site.com/")), "hello\n2");
    let received = app.received();
    let subject = received.last().unwrap().header("x-client-cert-subject");
    assert_eq!(subject, Some("CN=ann,O=Site"));
    assert_eq!(
        gibbon.metric("gibbon_connections_by_protocol_total{protocol=\"h2\",tls=\"no\"}"),
        Some(1.0)
    );
}

#[test]
fn openssl_shakes_hands_with_every_kind_of_key_and_takes_sessions_up_again() {
    let (app, authority) = (app(), Authority::new());
    let kinds = [("rsa", &PKCS_RSA_SHA256), ("ed", &PKCS_ED25519)];
    let mut parts = vec![authority.secret("ec", &["ec.site.com"])];
    for (name, kind) in kinds {
        let key = KeyPair::generate_for(kind).unwrap();
        parts.push(authority.secret_with(name, &[&format!("{name}.site.com")], &key));
    }
    for name in ["ec", "rsa", "ed"] {
        let tls = format!("tls: {{secretName: {name}}}");
        let rule = named(name, "/", &[member(app.address, "")], &tls);
        parts.push(rule.replace(HOST, &format!("{name}.site.com")));
    }
    let gibbon = Gibbon::start(&join(&parts));
    let directory = Directory::new("openssl");
    directory.file("ca.pem", &authority.certificate.pem());
    let shake = |name: &str, more: &str| {
        let arguments = format!(
            "s_client -connect {} -CAfile ca.pem \
             -verify_return_error -verify_hostname {name}.site.com {more}",
            gibbon.secure
        );
        let request =
            format!("GET / HTTP/1.1\r\nHost: {name}.site.com\r\nConnection: close\r\n\r\n");
        directory.run("openssl", &arguments, &request)
    };
    let own = |name: &str, more: &str| shake(name, &format!("-servername {name}.site.com {more}"));
    for name in ["ec", "rsa", "ed"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let file = format!("{name}{version}.session");
            let first = own(name, &format!("{version} -ign_eof -sess_out {file}"));
            let said = String::from_utf8_lossy(&first.stdout);
            assert!(first.status.success(), "{name} {version}: {said}");
            assert!(said.contains("Verification: OK") && said.contains("hello"), "{said}");
            let again = own(name, &format!("{version} -ign_eof -sess_in {file}"));
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(said.contains("Reused, TLSv1") && said.contains("hello"), "{said}");
        }
        for bad in
            ["-tls1_1", "-tls1", "-cipher AES128-SHA -tls1_2", "-cipher AES128-GCM-SHA256 -tls1_2"]
        {
            assert!(!own(name, bad).status.success(), "{name} {bad}");
        }
    }
    let said = own("ec", "-alpn h2,http/1.1");
    assert!(String::from_utf8_lossy(&said.stdout).contains("ALPN protocol: h2"));
    // A stranger's name, and none.
    for name in ["-servername other.org", "-noservername"] {
        let said = shake("ec", name);
        let alert = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && alert.contains("unrecognized name"), "{name}: {alert}");
    }
}

#[test]
fn h2load_loses_no_request() {
    let (app, authority) = (app(), Authority::new());
    let gibbon = Gibbon::start(&join(&[
        authority.secret("www", &[HOST]),
        balancer(&[member(app.address, "")], "tls: {secretName: www, redirect: false}"),
    ]));
    let directory = Directory::new("h2load");
    for (flags, url, to) in [
        ("", format!("https://{HOST}/"), gibbon.secure),
        ("", format!("http://{HOST}/"), gibbon.address),
        ("--h1", format!("https://{HOST}/"), gibbon.secure),
    ] {
        let arguments = format!("-n 1000 -c 20 -m 10 {flags} --connect-to {to} {url}");
        let said = directory.printed("h2load", &arguments, "");
        let whole = "1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored";
        assert!(said.contains(whole), "{url}: {said}");
        assert!(said.contains("status codes: 1000 2xx"), "{url}: {said}");
    }
}

/// What h2spec finds wrong, its strict cases included; and how many cases there are.
fn h2spec(address: SocketAddr, tls: &str) -> (Vec<String>, usize) {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(here.join("tests/h2spec")).output().unwrap();
    assert!(built.status.success(), "tests/h2spec: {}", String::from_utf8_lossy(&built.stderr));
    let program = String::from_utf8(built.stdout).unwrap();
    let flags = format!("--strict --timeout 5 --host 127.0.0.1 --port {} {tls}", address.port());
    let output = Directory::new("h2spec").run(program.trim(), &flags, "");
    let text = String::from_utf8(output.stdout).unwrap();
    let failures = text.split_once("Failures:").map_or("", |(_, failures)| failures);
    let failures = failures.lines().filter_map(|line| line.trim().strip_prefix("\u{d7} "));
    let cases = text.lines().last().and_then(|line| line.split(" tests,").next()?.parse().ok());
    (failures.map(str::to_owned).collect(), cases.expect(&text))
}

#[test]
fn h2spec_finds_nothing_but_that_there_is_http_1_too() {
    // Not at once, else a stream has ended before h2spec does with it what it is about.
    let slow =
        Act::After(Duration::from_millis(100), Box::new(Act::Write(response("200 OK", &[], "x"))));
    let app = Member::new(slow);
    let authority = Authority::new();
    let any =
        balancer(&[member(app.address, "")], "").replace("hosts: [www.site.com]", "hosts: []");
    let default = SecretId { namespace: "site".into(), name: "default".into() };
    let options = Options { default_certificate: Some(default), ..Options::default() };
    let gibbon = Gibbon::with(&join(&[authority.secret("default", &[HOST]), any]), options);
    let (failures, cases) = h2spec(gibbon.secure, "--tls --insecure");
    assert_eq!((failures, cases), (Vec::<String>::new(), 146));
    // Who does not begin as HTTP/2 does may speak HTTP/1.1, and is answered 400 by it before the
    // connection ends, where h2spec wants nothing but the end. RFC 9113, section 3.4: "A GOAWAY frame
    // MAY be omitted in this case, since an invalid preface indicates that the peer is not using HTTP/2."
    let (failures, cases) = h2spec(gibbon.address, "");
    assert_eq!((failures, cases), (vec!["2: Sends invalid connection preface".to_owned()], 146));
    let mut client = Client::new(gibbon.address);
    assert_eq!(client.send("INVALID CONNECTION PREFACE\r\n\r\n").read().unwrap().status, 400);
    assert!(client.is_closed());
}

#[test]
fn testssl_finds_nothing_above_low() {
    let (app, authority) = (app(), Authority::new());
    let gibbon = Gibbon::start(&join(&[
        proper(&authority),
        balancer(&[member(app.address, "")], "tls: {secretName: www, hsts: {}}"),
    ]));
    let directory = Directory::new("testssl");
    directory.file("ca.pem", &authority.certificate.pem());
    // Protocols, ciphers, forward secrecy, the server's defaults, vulnerabilities, headers.
    let arguments = format!(
        "--quiet --color 0 --warnings off --ip 127.0.0.1 --add-ca ca.pem --jsonfile out.json \
         -p -s -f -S -U -h {HOST}:{}",
        gibbon.secure.port()
    );
    let output = directory.run("testssl", &arguments, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = std::fs::read_to_string(directory.0.join("out.json"));
    let findings: Vec<Value> = serde_json::from_str(&json.unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {said}"));
    let is = |finding: &&Value, severities: &[&str]| {
        severities.contains(&finding["severity"].as_str().unwrap())
    };
    assert!(findings.iter().filter(|f| is(f, &["OK"])).count() > 30, "{said}");
    let grave: Vec<_> =
        findings.iter().filter(|f| is(f, &["MEDIUM", "HIGH", "CRITICAL", "FATAL"])).collect();
    assert!(grave.is_empty(), "{grave:#?}");
}

/// `gibbon demo --tls`, and its authority.
fn demo(secure: SocketAddr) -> Running {
    let (public, admin) = (free(), free());
    let mut demo = Command::new(env!("CARGO_BIN_EXE_gibbon"))
        .args(["demo", "--lines", "--rate", "0", "--listen", &public.to_string()])
        .args(["--admin", &admin.to_string(), "--tls", &secure.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = demo.stdout.take().unwrap();
    let demo = Running(demo);
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("--cacert")));
    // It goes on to write.
    std::thread::spawn(move || lines.for_each(drop));
    eventually(|| TcpStream::connect(secure).ok());
    demo
}

#[test]
fn a_browser_opens_the_demos_site_with_a_websocket_within_tls() {
    let secure = free();
    let _demo = demo(secure);
    let directory = Directory::new("chromium");
    // The browser is told whose key it may trust, and no other.
    let hands = format!("s_client -connect {secure} -servername {HOST}");
    let certificate = directory.run("openssl", &hands, "").stdout;
    let public =
        directory.printed("openssl", "x509 -noout -pubkey", &String::from_utf8_lossy(&certificate));
    directory.file("public.pem", &public);
    let _ =
        directory.printed("openssl", "pkey -pubin -in public.pem -outform DER -out public.der", "");
    let _ = directory.printed("openssl", "dgst -sha256 -binary -out hash public.der", "");
    let hash = directory.printed("openssl", "base64 -in hash", "");
    let site = format!("https://{HOST}:{}/", secure.port());
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", directory.0.display()))
        .arg(format!("--ignore-certificate-errors-spki-list={}", hash.trim()))
        .arg(format!("--host-resolver-rules=MAP {HOST} 127.0.0.1"))
        .arg(&site)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("chromium cannot be run; use tests/run: {error}"));
    let complaints = BufReader::new(browser.stderr.take().unwrap());
    let _browser = Running(browser);
    let mut lines = complaints.lines().map_while(Result::ok);
    let told =
        lines.find_map(|line| line.strip_prefix("DevTools listening on ws://").map(str::to_owned));
    let told = told.expect("chromium says where it is reached");
    let tools: SocketAddr = told.split('/').next().unwrap().parse().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let page = eventually(|| {
        let request =
            format!("GET /json/list HTTP/1.1\r\nHost: {tools}\r\nConnection: close\r\n\r\n");
        let seen = Client::new(tools).send(request).read()?;
        let pages: Vec<Value> = serde_json::from_slice(&seen.body).ok()?;
        let page = pages.into_iter().find(|page| page["url"] == site)?;
        Some(page["webSocketDebuggerUrl"].as_str()?.to_owned())
    });
    let live = "document.getElementById('live')?.textContent";
    let heard = until(&page, tools, live, |text| text.contains("speaks by a WebSocket"));
    assert!(heard.ends_with(" speaks by a WebSocket, within TLS"), "{heard}");
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(until(&page, tools, protocol, |text| !text.is_empty()), "h2");
    assert_eq!(until(&page, tools, "location.protocol", |_| true), "https:");
}

/// What an expression in a page becomes in the end.
fn until(page: &str, tools: SocketAddr, expression: &str, is: impl Fn(&str) -> bool) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asking = async {
        let stream = tokio::net::TcpStream::connect(tools).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(page, stream).await.unwrap();
        let question = json!({
            "id": 1, "method": "Runtime.evaluate", "params": {"expression": expression},
        });
        let began = Instant::now();
        loop {
            socket.send(Message::text(question.to_string())).await.unwrap();
            let answer = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let text = answer["result"]["result"]["value"].as_str().unwrap_or_default();
            if is(text) {
                return text.to_owned();
            }
            assert!(began.elapsed() < support::LIMIT, "{expression}: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    runtime.block_on(asking)
}
