//! Asks a page by HTTP: for probes and tests where there is no other program to do it.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest page that is printed.
const PAGE: usize = 1 << 20;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The page.
    pub text: Bytes,
    /// Whether the status was 2xx.
    pub is_good: bool,
}

/// Asks for a page.
///
/// # Errors
/// When there is no answer in time.
pub async fn ask(url: &Uri) -> anyhow::Result<Answer> {
    let answer = timeout(PATIENCE, get(url)).await;
    answer.with_context(|| format!("{url} did not answer in {} s", PATIENCE.as_secs()))?
}

async fn get(url: &Uri) -> anyhow::Result<Answer> {
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http"));
    let authority = authority
        .with_context(|| format!("{url} must be a URL such as http://127.0.0.1:9090/readyz"))?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await;
    let stream = stream.with_context(|| format!("{authority} cannot be reached"))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(header::HOST, authority.as_str());
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let is_good = response.status().is_success();
    let body = Limited::new(response.into_body(), PAGE).collect().await;
    let text = body.map_err(|error| anyhow::anyhow!("{url} broke off: {error}"))?.to_bytes();
    Ok(Answer { text, is_good })
}
