//! Members that are spoken to by TLS.

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use gibbon::source::names::Answer;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::{Gibbon, Member, Options, balancer, eventually, member, ok, secret_of};

const HOST: &str = "www.site.com";

/// A member with a certificate for a name, and what trusts it.
fn tls_member(name: &str) -> (SocketAddr, ClientConfig) {
    let ca_key = KeyPair::generate().unwrap();
    let ca = CertificateParams::new(Vec::new()).unwrap();
    let ca_certificate = ca.clone().self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).unwrap();
    let trusting = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (serve(Arc::new(config)), trusting)
}

fn serve(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || answer(StreamOwned::new(connection, stream)));
        }
    });
    address
}

fn answer(mut stream: impl Read + Write) {
    let mut head = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut head) {
        let text = String::from_utf8_lossy(&head[..read]).to_lowercase();
        let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}", host.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_member_is_verified_by_its_name_and_asked_without_the_default_port() {
    let (address, trusting) = tls_member("app.internal");
    let options = Options { tls: Some(trusting), ..Options::default() };
    let options = options.name("app.internal", 443, address);
    let gibbon = Gibbon::with(&balancer(&["url: 'https://app.internal/'".into()], ""), options);
    for _ in 0..3 {
        assert_eq!(gibbon.get(HOST, "/").text(), "app.internal");
    }
    assert_eq!(gibbon.metric("gibbon_member_connections_total{"), Some(1.0));
}

#[test]
fn a_member_with_a_certificate_for_another_name_is_replaced() {
    let (address, trusting) = tls_member("other.internal");
    let good = Member::new(ok("good"));
    let options = Options { tls: Some(trusting), ..Options::default() };
    let options = options.name("app.internal", 443, address);
    let members = ["url: 'https://app.internal/'".into(), member(good.address, "state: Standby")];
    let gibbon = Gibbon::with(&balancer(&members, ""), options);
    assert_eq!(gibbon.get(HOST, "/").text(), "good");
    let failures = gibbon.page("/metrics").text();
    assert!(failures.contains("reason=\"tls\""), "{failures}");
}

#[test]
fn an_untrusted_member_is_502_and_never_asked() {
    let (address, _) = tls_member("app.internal");
    let gibbon = Gibbon::start(&balancer(&["url: 'https://app.internal/'".into()], ""));
    let answer = Answer::Addresses(vec![address], std::time::Duration::from_secs(1));
    gibbon.resolver.fix("app.internal", 443, answer);
    support::eventually(|| {
        let text = gibbon.page("/metrics").text();
        let status = gibbon.get(HOST, "/").status;
        // The name is not known at first.
        assert!(matches!(status, 502 | 503), "{status}");
        (status == 502 && text.contains("reason=\"tls\"")).then_some(())
    });
}

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.clone().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let pem = certificate.pem();
        Self { issuer: Issuer::new(params, key), pem, roots: Arc::new(roots) }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// An Opaque Secret with the authority.
    fn secret(&self, name: &str) -> String {
        let pem = self.pem.trim_end().replace('\n', "\n    ");
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: site}}\n\
             stringData:\n  ca.crt: |\n    {pem}\n---\n"
        )
    }

    /// A Secret with a certificate of its own.
    fn certificate(&self, name: &str) -> String {
        let (certificate, key) = self.issue("gibbon");
        secret_of(name, &certificate.pem(), &key.serialize_pem()) + "---\n"
    }

    /// A member that agrees to these protocols and tells which one it was, with the number of
    /// certificates that it was shown.
    fn member(&self, name: &str, protocols: &[&str], clients: Option<&Self>) -> SocketAddr {
        let (certificate, key) = self.issue(name);
        let builder = ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = Arc::clone(&clients.roots);
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder(roots).build().unwrap(),
                )
            }
        };
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config =
            builder.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        speaking(config)
    }
}

fn speaking(config: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let shown = session.peer_certificates().map_or(0, <[_]>::len);
                    let http2 = session.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request: hyper::Request<_>| async move {
                        let _: &hyper::body::Incoming = request.body();
                        let said = format!("{:?} {shown}", request.version());
                        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(said))))
                    });
                    let io = TokioIo::new(stream);
                    if http2 {
                        let builder =
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection(io, service).await;
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(io, service).await;
                    }
                });
            }
        });
    });
    address
}

fn url(address: SocketAddr, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!("url: 'https://{address}/'{more}")
}

/// What `upstreamTLS` of a Balancer with this member says.
fn rule(address: SocketAddr, more: &str, tls: &str) -> String {
    balancer(&[url(address, more)], &format!("upstreamTLS: {{{tls}}}"))
}

#[test]
fn members_are_verified_against_the_authority_of_a_secret() {
    let authority = Authority::new();
    let address = authority.member("app.internal", &["h2", "http/1.1"], None);
    let rule = rule(address, "", "caSecret: ca, serverName: app.internal");
    let gibbon = Gibbon::start(&(authority.secret("ca") + &rule));
    for _ in 0..3 {
        assert_eq!(gibbon.get(HOST, "/").text(), "HTTP/2.0 0");
    }
    let other = Gibbon::start(&(Authority::new().secret("ca") + &rule));
    assert_eq!(other.get(HOST, "/").status, 502);
    assert!(other.page("/metrics").text().contains("reason=\"tls\""));
    // A Secret that is not there is no reason to trust others.
    let missing = Gibbon::start(&rule);
    assert_eq!(missing.get(HOST, "/").status, 502);
    let verbose = missing.page("/readyz?verbose").text();
    let said = "spec.upstreamTLS.caSecret: Secret site/ca: it does not exist";
    assert!(verbose.contains(said), "{verbose}");
}

#[test]
fn the_protocol_is_what_both_agree_on_unless_one_is_asked_for() {
    let authority = Authority::new();
    let tls = "caSecret: ca, serverName: app.internal";
    for (speaks, protocol, expected) in [
        (&["h2", "http/1.1"][..], "", "HTTP/2.0 0"),
        (&["http/1.1"], "", "HTTP/1.1 0"),
        (&[], "", "HTTP/1.1 0"),
        (&["h2", "http/1.1"], "protocol: HTTPS1", "HTTP/1.1 0"),
        (&["h2", "http/1.1"], "protocol: H2", "HTTP/2.0 0"),
    ] {
        let address = authority.member("app.internal", speaks, None);
        let gibbon = Gibbon::start(&(authority.secret("ca") + &rule(address, protocol, tls)));
        for _ in 0..3 {
            assert_eq!(gibbon.get(HOST, "/").text(), expected, "{speaks:?} {protocol}");
        }
    }
}

#[test]
fn a_member_that_asks_for_a_certificate_sees_that_of_the_secret() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let address = authority.member("app.internal", &["h2"], Some(&clients));
    let tls = "caSecret: ca, serverName: app.internal";
    let with = rule(address, "", &format!("{tls}, certificateSecret: own"));
    let secrets = authority.secret("ca") + &clients.certificate("own");
    let gibbon = Gibbon::start(&(secrets + &with));
    assert_eq!(gibbon.get(HOST, "/").text(), "HTTP/2.0 1");
    for protocol in ["H2", "HTTPS1"] {
        let address = match protocol {
            "H2" => address,
            _ => authority.member("app.internal", &["http/1.1"], Some(&clients)),
        };
        let rule = rule(address, &format!("protocol: {protocol}"), tls);
        let without = Gibbon::start(&(authority.secret("ca") + &rule));
        assert_eq!(without.get(HOST, "/").status, 502, "{protocol}");
        // HTTP/1.1 has been sent when the member says no, and its answer may be lost with that.
        let said = without.page("/metrics").text().contains("reason=\"tls\"");
        assert!(said || protocol == "HTTPS1");
    }
    // One that the member does not know.
    let secrets = authority.secret("ca") + &authority.certificate("own");
    let stranger = Gibbon::start(&(secrets + &with));
    assert_eq!(stranger.get(HOST, "/").status, 502);
}

#[test]
fn nobody_is_verified_only_if_that_is_asked_for() {
    let address = Authority::new().member("other.internal", &["http/1.1"], None);
    let gibbon = Gibbon::start(&rule(address, "", "insecureSkipVerify: true"));
    assert_eq!(gibbon.get(HOST, "/").text(), "HTTP/1.1 0");
    // A connection that was made without a check is not used when one is wanted.
    gibbon.write("balancers.yaml", &rule(address, "", "insecureSkipVerify: false"));
    eventually(|| (gibbon.get(HOST, "/").status == 502).then_some(()));
}

#[test]
fn an_authority_that_changes_is_in_use_for_the_next_connection_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let address = old.member("app.internal", &["h2"], None);
    let rule = rule(address, "", "caSecret: ca, serverName: app.internal");
    let gibbon = Gibbon::start(&(old.secret("ca") + &rule));
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    let broken =
        old.secret("ca").replace("BEGIN CERTIFICATE-----\n    M", "BEGIN CERTIFICATE-----\n    X");
    gibbon.write("balancers.yaml", &(broken + &rule));
    let verbose = || gibbon.page("/readyz?verbose").text();
    eventually(|| verbose().contains("spec.upstreamTLS.caSecret: Secret site/ca: ").then_some(()));
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    gibbon.write("balancers.yaml", &(new.secret("ca") + &rule));
    eventually(|| (gibbon.get(HOST, "/").status == 502).then_some(()));
}

#[test]
fn no_page_shows_a_key_for_members() {
    let authority = Authority::new();
    let address = authority.member("app.internal", &["h2"], Some(&authority));
    let own = authority.certificate("own");
    let tls = "caSecret: ca, serverName: app.internal, certificateSecret: own";
    let gibbon = Gibbon::start(&(authority.secret("ca") + &own + &rule(address, "", tls)));
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    let key = own.split("tls.key").nth(1).unwrap().lines().skip(2).map(str::trim);
    let key: Vec<_> = key.filter(|line| line.len() > 20).collect();
    assert!(!key.is_empty());
    for page in ["/table", "/metrics", "/readyz?verbose"] {
        let text = gibbon.page(page).text();
        assert!(key.iter().all(|line| !text.contains(line)), "{page}");
    }
}

#[test]
fn health_checks_trust_whom_requests_trust() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = "caSecret: ca, serverName: app.internal, certificateSecret: own";
    let good = authority.member("app.internal", &["h2"], Some(&clients));
    let bad = authority.member("other.internal", &["http/1.1"], None);
    let members = [url(good, "name: good"), url(bad, "name: bad")];
    let check = "healthCheck: {path: /, interval: 50ms, failureThreshold: 2}";
    let rule = balancer(&members, &format!("{check}\nupstreamTLS: {{{tls}}}"));
    let secrets = authority.secret("ca") + &clients.certificate("own");
    let gibbon = Gibbon::start(&(secrets + &rule));
    let condition = |at: usize| gibbon.table()["balancers"][0]["members"][at]["condition"].clone();
    eventually(|| (condition(1) == "failing").then_some(()));
    assert_ne!(condition(0), "failing");
    let passed = |line: &&str| {
        line.starts_with("gibbon_member_health_checks_total{") && line.contains("\"passed\"")
    };
    eventually(|| {
        let text = gibbon.page("/metrics").text();
        let mut lines = text.lines().filter(passed);
        lines.any(|line| line.contains("\"good\"") && !line.ends_with(" 0")).then_some(())
    });
}
