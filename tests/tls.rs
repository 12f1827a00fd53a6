//! Members that are spoken to by TLS.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use gibbon::source::names::Answer;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::{Gibbon, Member, Options, balancer, member, ok};

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
fn an_untrusted_member_is_502_or_503_and_never_asked() {
    let (address, _) = tls_member("app.internal");
    let gibbon = Gibbon::start(&balancer(&["url: 'https://app.internal/'".into()], ""));
    let answer = Answer::Addresses(vec![address], std::time::Duration::from_secs(1));
    gibbon.resolver.fix("app.internal", 443, answer);
    support::eventually(|| {
        let text = gibbon.page("/metrics").text();
        let status = gibbon.get(HOST, "/").status;
        assert_eq!(status, 503);
        text.contains("reason=\"tls\"").then_some(())
    });
}
