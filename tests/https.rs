//! TLS with clients: certificates by server name, redirects to it, what changes behind it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gibbon::table::tls::SecretId;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd};
use support::authority::{Authority, connect};
use support::{
    Act, Gibbon, Member, Options, balancer, eventually, join, member, named, ok, response,
    secret_of,
};

const HOST: &str = "www.site.com";

fn tls(members: &[String], more: &str) -> String {
    balancer(members, &format!("tls: {{secretName: www{more}}}"))
}

#[test]
fn a_connection_that_has_rested_goes_on_and_is_closed_as_tls_wants_it() {
    let big = "x".repeat(3_000_000);
    let app = Member::new(ok(&big));
    let authority = Authority::new();
    let yaml = join(&[authority.secret("www", &[HOST]), tls(&[member(app.address, "")], "")]);
    let mut gibbon = Gibbon::with(&yaml, Options::default());
    let mut secured = authority.connect(&gibbon, HOST).unwrap();
    let rest = || std::thread::sleep(Duration::from_millis(400));
    for _ in 0..2 {
        let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        secured.0.get_mut().write_all(ask.as_bytes()).unwrap();
        rest();
        let seen = support::read_answer(&mut secured.0, "GET").unwrap();
        assert!(seen.text() == big);
        rest();
        assert!(secured.ask(HOST, "/").text() == big);
        rest();
    }
    gibbon.end(Duration::ZERO);
    // An end without close_notify is an error.
    assert_eq!(secured.0.read(&mut [0]).unwrap(), 0);
    let mut options = Options::default();
    options.settings.patience.idle = Duration::from_secs(2);
    let gibbon = Gibbon::with(&yaml, options);
    let [mut idle, mut client] = [(); 2].map(|()| authority.connect(&gibbon, HOST).unwrap());
    assert_eq!(idle.ask(HOST, "/").status, 200);
    assert_eq!(client.ask(HOST, "/").status, 200);
    rest();
    client.0.get_mut().conn.send_close_notify();
    client.0.get_mut().flush().unwrap();
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    assert_eq!(idle.0.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_host_is_served_with_its_certificate_and_members_hear_of_it() {
    let said =
        [("Location", "http://app1.site.com/login"), ("Set-Cookie", "a=b; Domain=app1.site.com")];
    let app = Member::new(Act::Write(response("200 OK", &said, "x")));
    let authority = Authority::new();
    let entry = "url: 'http://app1.site.com/'".to_owned();
    let yaml = join(&[
        authority.secret("www", &[HOST]),
        balancer(
            &[entry],
            "tls: {secretName: www, hsts: {includeSubdomains: true}}\nsticky: {issue: {name: member}}",
        ),
    ]);
    let options = Options::default().name("app1.site.com", 80, app.address);
    let gibbon = Gibbon::with(&yaml, options);
    let seen = authority.get(&gibbon, HOST, "/");
    assert_eq!((seen.status, seen.text().as_str()), (200, "x"));
    assert_eq!(seen.header("location"), Some("https://www.site.com/login"));
    let hsts = seen.header("strict-transport-security");
    assert_eq!(hsts, Some("max-age=31536000; includeSubDomains"));
    let cookies = seen.all("set-cookie");
    assert!(
        cookies.iter().any(|c| c.starts_with("member=") && c.contains("Secure")),
        "{cookies:?}"
    );
    assert_eq!(app.received()[0].header("x-forwarded-proto"), Some("https"));
    let shaken = "gibbon_tls_handshakes_total{result=\"ok\",version=\"1.3\"}";
    assert_eq!(gibbon.metric(shaken), Some(1.0));
    let until = gibbon.metric("gibbon_certificate_expiry_timestamp_seconds{host=\"www.site.com\"}");
    assert!(until > Some(1_790_000_000.0), "{until:?}");
    // What Gibbon answers itself says so too.
    drop(app);
    let seen = authority.get(&gibbon, HOST, "/");
    assert_eq!((seen.status, seen.header("strict-transport-security")), (503, hsts));
}

#[test]
fn each_server_name_gets_its_own_certificate_and_an_unknown_one_an_alert() {
    let authority = Authority::new();
    let site = |name: &str, host: &str| {
        let more = format!("tls: {{secretName: {name}}}\nredirect: {{to: /{name}, status: 302}}");
        named(name, "/", &[], &more).replace("[www.site.com]", &format!("['{host}']"))
    };
    let yaml = join(&[
        authority.secret_with(
            "rsa",
            &["rsa.site.com"],
            &KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
        ),
        authority.secret_with(
            "ed",
            &["ed.site.com"],
            &KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        ),
        authority.secret("wild", &["*.site.com"]),
        site("rsa", "rsa.site.com"),
        site("ed", "ed.site.com"),
        site("wild", "*.site.com"),
    ]);
    let gibbon = Gibbon::start(&yaml);
    for (host, name) in [("rsa.site.com", "rsa"), ("ed.site.com", "ed"), ("a.site.com", "wild")] {
        let seen = authority.get(&gibbon, host, "/");
        assert!(seen.header("location").unwrap().starts_with(&format!("https://{host}/{name}")));
    }
    let error = authority.connect(&gibbon, "other.org").map(drop).unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    let unknown = "gibbon_tls_handshakes_total{result=\"unknown_name\",version=\"none\"}";
    eventually(|| (gibbon.metric(unknown) == Some(1.0)).then_some(()));
    // A connection for one host is not for another that has a certificate of its own.
    let mut connection = authority.connect(&gibbon, "a.site.com").unwrap();
    assert_eq!(connection.ask("b.site.com", "/").status, 302);
    assert_eq!(connection.ask("rsa.site.com", "/").status, 421);
    assert_eq!(connection.ask("other.org", "/").status, 421);
}

#[test]
fn hosts_without_a_certificate_get_the_default_if_there_is_one() {
    let authority = Authority::new();
    let app = Member::new(ok("x"));
    let yaml = join(&[
        authority.secret("default", &["other.org"]),
        balancer(&[member(app.address, "")], ""),
    ]);
    let id = SecretId { namespace: "site".into(), name: "default".into() };
    let options = Options { default_certificate: Some(id), ..Options::default() };
    let gibbon = Gibbon::with(&yaml, options);
    let mut connection = authority.connect(&gibbon, "other.org").unwrap();
    assert_eq!(connection.ask("www.site.com", "/").text(), "x");
    let until = gibbon.metric("gibbon_certificate_expiry_timestamp_seconds{host=\"*\"}");
    assert!(until > Some(1_790_000_000.0), "{until:?}");
}

#[test]
fn requests_without_tls_are_sent_to_it() {
    let app = Member::new(ok("x"));
    let authority = Authority::new();
    let yaml = join(&[authority.secret("www", &[HOST]), tls(&[member(app.address, "")], "")]);
    let mut options = Options::default().trusting();
    options.settings.public_https_port = 8443;
    let gibbon = Gibbon::with(&yaml, options);
    for method in ["GET", "POST"] {
        let seen =
            gibbon.ask(method, "www.site.com:8080", "/a%2Fb?c=d", &[("Content-Length", "0")]);
        assert_eq!(seen.status, 308);
        assert_eq!(seen.header("location"), Some("https://www.site.com:8443/a%2Fb?c=d"));
        assert_eq!(seen.header("strict-transport-security"), None);
    }
    assert_eq!(gibbon.get(HOST, "/.well-known/acme-challenge/token").text(), "x");
    // Who does not say which host it wants cannot be sent there.
    let any = tls(&[member(app.address, "")], "").replace("  hosts: [www.site.com]\n", "");
    let secret = authority.secret("www", &[HOST]);
    let nameless = Gibbon::start(&join(&[secret, any]));
    let seen = nameless.client().send("GET / HTTP/1.0\r\n\r\n").read().unwrap();
    assert_eq!((seen.status, seen.header("location")), (400, None));
    // Somebody before Gibbon speaks TLS with the client.
    let behind = gibbon.ask("GET", HOST, "/", &[("X-Forwarded-Proto", "https")]);
    assert_eq!(behind.text(), "x");
    let yaml = join(&[
        authority.secret("www", &[HOST]),
        tls(&[member(app.address, "")], ", redirect: false"),
    ]);
    assert_eq!(Gibbon::start(&yaml).get(HOST, "/").text(), "x");
}

#[test]
fn a_secret_that_changes_is_in_use_for_the_next_handshake_and_no_connection_ends() {
    let app = Member::new(ok("x"));
    let (old, new) = (Authority::new(), Authority::new());
    let rule = tls(&[member(app.address, "")], "");
    let gibbon = Gibbon::start(&join(&[old.secret("www", &[HOST]), rule.clone()]));
    let mut open = old.connect(&gibbon, HOST).unwrap();
    assert_eq!(open.ask(HOST, "/").status, 200);
    gibbon.write("balancers.yaml", &join(&[new.secret("www", &[HOST]), rule.clone()]));
    eventually(|| new.connect(&gibbon, HOST).ok());
    assert_eq!(open.ask(HOST, "/").status, 200);
    assert!(old.connect(&gibbon, HOST).is_err());
    // One that cannot be used leaves the last good one in use, and is named.
    let broken = new.secret("www", &[HOST]).replacen(
        "BEGIN PRIVATE KEY-----\n    M",
        "BEGIN PRIVATE KEY-----\n    X",
        1,
    );
    gibbon.write("balancers.yaml", &join(&[broken, rule.clone()]));
    let verbose = || gibbon.page("/readyz?verbose").text();
    eventually(|| {
        verbose()
            .contains("certificates: site/app: spec.tls.secretName: Secret site/www: its tls.key")
            .then_some(())
    });
    assert_eq!(new.get(&gibbon, HOST, "/").text(), "x");
    gibbon.write("balancers.yaml", &join(&[new.secret("www", &["other.org"]), rule]));
    eventually(|| verbose().contains("its certificate is not for www.site.com").then_some(()));
}

#[test]
fn a_certificate_is_used_from_when_it_is_valid_and_its_end_is_told() {
    let app = Member::new(ok("x"));
    let authority = Authority::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    params.not_before = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(2);
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(8);
    let key = KeyPair::generate().unwrap();
    let certificate = authority.sign(&params, &key).pem();
    let secret = secret_of("www", &certificate, &key.serialize_pem());
    let gibbon = Gibbon::start(&join(&[secret, tls(&[member(app.address, "")], "")]));
    let verbose = || gibbon.page("/readyz?verbose").text();
    assert!(verbose().contains("its certificate is not valid before"), "{}", verbose());
    // Nothing changes but the time.
    eventually(|| authority.connect(&gibbon, HOST).ok());
    assert!(!verbose().contains("certificate"), "{}", verbose());
    eventually(|| verbose().contains("its certificate has expired").then_some(()));
}

#[test]
fn http_2_is_chosen_by_alpn() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let app = Member::new(ok("hi"));
    let authority = Authority::new();
    let gibbon = Gibbon::start(&join(&[
        authority.secret("www", &[HOST]),
        tls(&[member(app.address, "")], ""),
    ]));
    let mut config = authority.config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gibbon.secure).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(HOST.try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let hands =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = hands.await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get("https://www.site.com/").body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
    });
    assert_eq!(app.received()[0].header("x-forwarded-proto"), Some("https"));
}

#[test]
fn who_has_agreed_on_http_2_gets_no_http_1() {
    let authority = Authority::new();
    let gibbon = Gibbon::start(&join(&[
        authority.secret("www", &[HOST]),
        tls(&[member(Member::dead(), "")], ""),
    ]));
    let mut config = authority.config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut secured = connect(&Arc::new(config), &gibbon, HOST).unwrap();
    secured.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n").unwrap();
    let said = secured.rest();
    assert!(!said.starts_with(b"HTTP/1"), "{:?}", String::from_utf8_lossy(&said));
}

#[test]
fn handshakes_that_stall_are_cut_off_and_hold_nobody_up() {
    let app = Member::new(ok("x"));
    let authority = Authority::new();
    let mut options = Options::default();
    options.settings.patience.head = Duration::from_millis(400);
    let yaml = join(&[authority.secret("www", &[HOST]), tls(&[member(app.address, "")], "")]);
    let gibbon = Gibbon::with(&yaml, options);
    let stalled: Vec<_> = (0..500)
        .map(|number| {
            let mut stream = TcpStream::connect(gibbon.secure).unwrap();
            // Some begin a handshake, and some say nothing.
            if number % 2 == 0 {
                stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(authority.get(&gibbon, HOST, "/").text(), "x");
    for mut stream in stalled {
        stream.set_read_timeout(Some(support::LIMIT)).unwrap();
        assert!(matches!(stream.read(&mut [0; 16]), Ok(_) | Err(_)));
    }
    eventually(|| (gibbon.metric("gibbon_connections_open") == Some(0.0)).then_some(()));
    let timeouts = "gibbon_tls_handshakes_total{result=\"timeout\",version=\"none\"}";
    eventually(|| (gibbon.metric(timeouts) == Some(500.0)).then_some(()));
}

#[test]
fn no_page_shows_a_key() {
    let app = Member::new(ok("x"));
    let authority = Authority::new();
    let secret = authority.secret("www", &[HOST]);
    let key: Vec<_> =
        secret.split("tls.key").nth(1).unwrap().lines().skip(2).map(str::trim).collect();
    let gibbon = Gibbon::start(&join(&[secret.clone(), tls(&[member(app.address, "")], "")]));
    for page in ["/table", "/metrics", "/readyz?verbose"] {
        let text = gibbon.page(page).text();
        assert!(
            key.iter().filter(|line| line.len() > 20).all(|line| !text.contains(*line)),
            "{page}"
        );
    }
}
