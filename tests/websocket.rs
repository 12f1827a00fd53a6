//! `WebSocket`s, by tokio-tungstenite on both sides.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use support::{Gibbon, balancer, member, secret_of};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

const HOST: &str = "www.site.com";

/// A certificate for the site's host, and what trusts it.
struct Certificate {
    secret: String,
    server: ServerConfig,
    client: ClientConfig,
}

impl Certificate {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let secret = secret_of("www", &certificate.pem(), &key.serialize_pem()) + "---\n";
        let chain = vec![certificate.der().clone()];
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(chain, private).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { secret, server, client }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A member that says what it hears, with or without TLS.
fn server(tls: Option<ServerConfig>) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => echo(stream).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            // What is agreed on here cannot carry a WebSocket of HTTP/1.1.
                            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                                echo(stream).await;
                            }
                        }
                    }
                });
            }
        });
    });
    address
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, scheme: &str) {
    let url = format!("{scheme}://{HOST}/chat");
    let (mut socket, response) = client_async(url, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    for length in [1, 200, 100_000] {
        let text = "x".repeat(length);
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

/// Speaks through both listeners.
fn talk_through(gibbon: &Gibbon, client: &ClientConfig) {
    runtime().block_on(async {
        talk(TcpStream::connect(gibbon.address).await.unwrap(), "ws").await;
        let connector = TlsConnector::from(Arc::new(client.clone()));
        let stream = TcpStream::connect(gibbon.secure).await.unwrap();
        let name = HOST.try_into().unwrap();
        talk(connector.connect(name, stream).await.unwrap(), "wss").await;
    });
}

#[test]
fn a_websocket_goes_through_with_tls_and_without() {
    let certificate = Certificate::new();
    let rule = balancer(&[member(server(None), "")], "tls: {secretName: www, redirect: false}");
    let gibbon = Gibbon::start(&(certificate.secret + &rule));
    talk_through(&gibbon, &certificate.client);
}

#[test]
fn a_member_that_would_rather_speak_http_2_gets_a_websocket_by_http_1() {
    let certificate = Certificate::new();
    let mut config = certificate.server.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let url = format!("url: 'https://{}/'", server(Some(config)));
    let tls = "tls: {secretName: www, redirect: false}\nupstreamTLS: {insecureSkipVerify: true}";
    let gibbon = Gibbon::start(&(certificate.secret + &balancer(&[url], tls)));
    talk_through(&gibbon, &certificate.client);
}
