//! gRPC, by tonic on both sides.

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::http2::{DATA, END_STREAM, FrameMember, HEADERS, frame, max_streams, reset};
use support::{Act, Gibbon, Member, balancer, eventually, member, response};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

const HOST: &str = "www.site.com";

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

/// A service that says what it hears; `fail N` is answered with the status N.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

type Answers = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

fn heard(said: &str) -> Result<Text, Status> {
    match said.strip_prefix("fail ") {
        Some(code) => Err(Status::new(Code::from(code.parse::<i32>().unwrap()), "as asked")),
        None => Ok(text(said)),
    }
}

async fn unary(request: Request<Text>) -> Result<Response<Text>, Status> {
    let mut response = Response::new(heard(&request.get_ref().text)?);
    let metadata = request.metadata().get("x-question").cloned();
    if let Some(question) = metadata {
        response.metadata_mut().insert("x-answer", question);
    }
    Ok(response)
}

async fn server_streaming(request: Request<Text>) -> Result<Response<Answers>, Status> {
    let parts: Vec<_> = request.get_ref().text.split(',').map(heard).collect();
    Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
}

async fn client_streaming(request: Request<Streaming<Text>>) -> Result<Response<Text>, Status> {
    let mut all = Vec::new();
    let mut said = request.into_inner();
    while let Some(part) = said.message().await? {
        all.push(part.text);
    }
    Ok(Response::new(text(all.join(","))))
}

async fn both_streaming(request: Request<Streaming<Text>>) -> Result<Response<Answers>, Status> {
    let said = request.into_inner().map(|part| heard(&part?.text));
    Ok(Response::new(Box::pin(said)))
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(match request.uri().path() {
                "/test.Echo/Unary" => grpc.unary(service_fn(unary), request).await,
                "/test.Echo/Server" => {
                    grpc.server_streaming(service_fn(server_streaming), request).await
                }
                "/test.Echo/Client" => {
                    grpc.client_streaming(service_fn(client_streaming), request).await
                }
                _ => grpc.streaming(service_fn(both_streaming), request).await,
            })
        })
    }
}

/// A server by tonic.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpListenerStream::new(listener);
            Server::builder().add_service(Echo).serve_with_incoming(incoming).await.unwrap();
        });
    });
    address
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn h2c(address: SocketAddr) -> String {
    member(address, "protocol: H2C")
}

fn gibbon(address: SocketAddr, more: &str) -> Gibbon {
    Gibbon::start(&balancer(&[h2c(address)], more))
}

/// A client by tonic.
struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn new(gibbon: &Gibbon) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", gibbon.address)).unwrap();
        let endpoint = endpoint.origin(format!("http://{HOST}").parse().unwrap());
        Self(tonic::client::Grpc::new(endpoint.connect().await.unwrap()))
    }

    fn path(name: &str) -> PathAndQuery {
        format!("/test.Echo/{name}").parse().unwrap()
    }

    async fn unary(&mut self, said: &str) -> Result<Response<Text>, Status> {
        let mut request = Request::new(text(said));
        request.metadata_mut().insert("x-question", "why".parse().unwrap());
        self.0.ready().await.unwrap();
        self.0.unary(request, Self::path("Unary"), ProstCodec::<Text, Text>::default()).await
    }

    async fn server(&mut self, said: &str) -> Result<Vec<String>, Status> {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Text, Text>::default();
        let request = Request::new(text(said));
        let answers = self.0.server_streaming(request, Self::path("Server"), codec).await?;
        let mut answers = answers.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            all.push(answer.text);
        }
        Ok(all)
    }
}

#[test]
fn all_four_kinds_of_calls_go_through() {
    let gibbon = gibbon(echo(), "");
    runtime().block_on(async {
        let mut client = Client::new(&gibbon).await;
        let answer = client.unary("hello").await.unwrap();
        assert_eq!(answer.get_ref().text, "hello");
        assert_eq!(answer.metadata().get("x-answer").unwrap(), "why");
        assert_eq!(client.server("a,b,c").await.unwrap(), ["a", "b", "c"]);
        let codec = ProstCodec::<Text, Text>::default;
        let said = || tokio_stream::iter(["x", "y", "z"].map(text));
        client.0.ready().await.unwrap();
        let request = Request::new(said());
        let answer = client.0.client_streaming(request, Client::path("Client"), codec()).await;
        assert_eq!(answer.unwrap().get_ref().text, "x,y,z");
        // Each message is answered before the next is sent.
        let (send, said) = tokio::sync::mpsc::channel(1);
        let said = Request::new(tokio_stream::wrappers::ReceiverStream::new(said));
        client.0.ready().await.unwrap();
        let answers = client.0.streaming(said, Client::path("Both"), codec());
        let (answers, ()) = tokio::join!(answers, async { send.send(text("0")).await.unwrap() });
        let mut answers = answers.unwrap().into_inner();
        for number in 0..20 {
            assert_eq!(answers.message().await.unwrap(), Some(text(number.to_string())));
            send.send(text((number + 1).to_string())).await.unwrap();
        }
        drop(send);
        assert_eq!(answers.message().await.unwrap(), Some(text("20")));
        assert_eq!(answers.message().await.unwrap(), None);
    });
    let connections = gibbon.page("/metrics").text();
    let http2 = connections.lines().find(|line| {
        line.starts_with("gibbon_member_connections_total{") && line.contains("\"http2\"")
    });
    assert!(http2.unwrap().ends_with(" 1"), "{http2:?}");
}

#[test]
fn what_gibbon_refuses_is_a_status_of_grpc() {
    let big = "limits: {requestBody: 16}";
    let dead = Member::dead();
    for (gibbon, code) in [
        (gibbon(dead, ""), Code::Unavailable),
        (gibbon(echo(), "access: {deny: [127.0.0.0/8]}"), Code::PermissionDenied),
        (gibbon(echo(), big), Code::ResourceExhausted),
        (Gibbon::start(&support::named("app", "/other/", &[h2c(dead)], "")), Code::Unimplemented),
    ] {
        runtime().block_on(async {
            let mut client = Client::new(&gibbon).await;
            let said = "a message of more than sixteen bytes";
            let status = client.unary(said).await.unwrap_err();
            assert_eq!(status.code(), code, "{status:?}");
            assert!(!status.message().is_empty());
        });
    }
}

fn failures(gibbon: &Gibbon) -> u64 {
    let page = gibbon.page("/metrics").text();
    let lines = page.lines().filter(|line| line.starts_with("gibbon_member_failures_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn statuses_in_heads_and_in_trailers_count_as_configured() {
    for (more, counted) in [("", 14), ("failover: {grpcStatuses: [5]}", 5)] {
        let gibbon = gibbon(echo(), more);
        runtime().block_on(async {
            let mut client = Client::new(&gibbon).await;
            for (number, code) in [5, 14, 3].into_iter().enumerate() {
                let before = failures(&gibbon);
                // A head without a body.
                let status = client.unary(&format!("fail {code}")).await.unwrap_err();
                assert_eq!(status.code() as i32, code, "{number}");
                // Trailers, after a head with 200 and a message.
                let status = client.server(&format!("a,fail {code}")).await.unwrap_err();
                assert_eq!(status.code() as i32, code);
                let expected = if code == counted { 2 } else { 0 };
                assert_eq!(failures(&gibbon) - before, expected, "{more} {code}");
            }
            assert_eq!(client.unary("well").await.unwrap().get_ref().text, "well");
        });
        let usable = "gibbon_members{namespace=\"site\",balancer=\"app\",state=\"usable\"}";
        assert_eq!(gibbon.metric(usable), Some(1.0));
    }
}

#[test]
fn the_web_ends_its_answers_in_the_body_and_that_is_no_failure() {
    let kind = ("Content-Type", "application/grpc-web+proto");
    for (act, counted) in [
        // A message, and trailers as the body has them.
        (response("200 OK", &[kind], "\0\0\0\0\0\u{7f}\0\0\0\u{f}grpc-status:0\r\n"), 0),
        (response("200 OK", &[kind, ("grpc-status", "14")], ""), 3),
        (response("200 OK", &[kind, ("grpc-status", "0")], ""), 0),
        (response("503 Service Unavailable", &[kind, ("grpc-status", "0")], ""), 3),
    ] {
        let app = Member::new(Act::Write(act.clone()));
        let gibbon = Gibbon::start(&balancer(&[member(app.address, "")], ""));
        for _ in 0..3 {
            gibbon.ask("POST", HOST, "/test.Echo/Unary", &[kind, ("Content-Length", "0")]);
        }
        eventually(|| (gibbon.metric("gibbon_member_in_flight{") == Some(0.0)).then_some(()));
        assert_eq!(failures(&gibbon), counted, "{}", String::from_utf8_lossy(&act));
    }
}

/// The head's fields and the trailers of a call with a body of zeroes, in a client of HTTP/2.
async fn call(gibbon: &Gibbon, timeout: Option<&str>) -> (http::HeaderMap, http::HeaderMap) {
    let stream = tokio::net::TcpStream::connect(gibbon.address).await.unwrap();
    let hands = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = hands.await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{HOST}/test.Echo/Unary"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let request = request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    (head.headers, body.trailers().cloned().unwrap_or_default())
}

/// Answers with a head of gRPC and one message, and goes on as `then` says.
fn begins(then: impl Fn(u32) -> Vec<u8> + Send + 'static) -> FrameMember {
    FrameMember::new(max_streams(100), move |_, seen, writer| {
        if seen.ends() {
            use std::io::Write;
            // `:status: 200`, and `content-type` with a value of its own (RFC 7541, 6.2.1).
            let mut block = vec![0x88, 0x5f, 16];
            block.extend(b"application/grpc");
            let mut bytes = frame(HEADERS, 4, seen.stream, &block);
            bytes.extend(frame(DATA, 0, seen.stream, &[0; 5]));
            bytes.extend(then(seen.stream));
            let _ = writer.lock().unwrap().write_all(&bytes);
        }
    })
}

#[test]
fn the_clients_deadline_ends_a_call_and_is_not_the_members_fault() {
    let silent = FrameMember::new(max_streams(100), |_, _, _| {});
    let gibbon_of_silent = gibbon(silent.address, "");
    let begun = begins(|_| Vec::new());
    let gibbon_of_begun = gibbon(begun.address, "");
    runtime().block_on(async {
        let start = Instant::now();
        for _ in 0..5 {
            let (head, trailers) = call(&gibbon_of_silent, Some("100m")).await;
            assert_eq!(head["grpc-status"], "4");
            assert_eq!(head["content-type"], "application/grpc+proto");
            assert!(trailers.is_empty());
        }
        let (head, trailers) = call(&gibbon_of_begun, Some("100000u")).await;
        assert_eq!(head.get("grpc-status"), None);
        assert_eq!(trailers["grpc-status"], "4");
        assert!(start.elapsed() > Duration::from_millis(600));
    });
    assert_eq!(failures(&gibbon_of_silent) + failures(&gibbon_of_begun), 0);
}

#[test]
fn a_call_that_breaks_off_ends_with_a_status_and_counts() {
    let member = begins(|stream| reset(stream, 2));
    let gibbon = gibbon(member.address, "");
    let (_, trailers) = runtime().block_on(call(&gibbon, None));
    assert_eq!(trailers["grpc-status"], "14");
    assert_eq!(failures(&gibbon), 1);
    // An end without trailers is no good end either.
    let member = begins(|stream| frame(DATA, END_STREAM, stream, &[]));
    let gibbon = self::gibbon(member.address, "");
    let (_, trailers) = runtime().block_on(call(&gibbon, None));
    assert!(trailers.is_empty());
    eventually(|| (failures(&gibbon) == 1).then_some(()));
}

#[test]
fn silence_between_messages_ends_a_call_only_if_a_limit_is_asked_for() {
    let member = begins(|_| Vec::new());
    let gibbon = gibbon(member.address, "timeouts: {response: 200ms}");
    let (_, trailers) = runtime().block_on(call(&gibbon, None));
    assert_eq!(trailers["grpc-status"], "14");
    assert_eq!(failures(&gibbon), 1);
}

/// Answers with the trailers of the request.
async fn mirror(request: http::Request<Incoming>) -> http::Response<Mirrored> {
    let body = request.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let frames = [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
    http::Response::new(http_body_util::StreamBody::new(tokio_stream::iter(frames)))
}

type Frames = std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>;
type Mirrored = http_body_util::StreamBody<tokio_stream::Iter<Frames>>;

#[test]
fn trailers_go_both_ways() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(|request| async {
                    Ok::<_, Infallible>(mirror(request).await)
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    let gibbon = gibbon(address, "");
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(gibbon.address).await.unwrap();
        let io = TokioIo::new(stream);
        let hands = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = hands.await.unwrap();
        tokio::spawn(connection);
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("42"),
        )]);
        let told = std::future::ready(Some(Ok(trailers)));
        let body = Empty::<Bytes>::new().with_trailers(told);
        let request = http::Request::post(format!("http://{HOST}/")).header("te", "trailers");
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    });
}
