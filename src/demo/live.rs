//! A WebSocket at the application servers: says who is at its other end, and repeats what it hears.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Where it is.
pub const PATH: &str = "/live";

/// What a page does with it.
pub const SCRIPT: &str = "<p id=\"live\">no WebSocket</p>\n<script>\n\
    const live = new WebSocket(location.origin.replace(/^http/, 'ws') + '/live');\n\
    live.onmessage = (event) => document.getElementById('live').textContent = event.data;\n\
    </script>\n";

/// Takes the connection out of HTTP, and greets; nothing if the request is none for a WebSocket.
pub fn open(request: &mut Request<Incoming>, greeting: String) -> Option<Response<Full<Bytes>>> {
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    let key = request.headers().get(SEC_WEBSOCKET_KEY)?.clone();
    if request.uri().path() != PATH || !request.headers().get(UPGRADE).is_some_and(is_websocket) {
        return None;
    }
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    let upgrade = hyper::upgrade::on(request);
    spawn_local(async move {
        if let Err(error) = speak(upgrade, greeting).await {
            tracing::debug!(%error, "a WebSocket ended");
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

async fn speak(upgrade: OnUpgrade, greeting: String) -> Result<(), Error> {
    let Ok(upgraded) = upgrade.await else {
        return Err(Error::ConnectionClosed);
    };
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    socket.send(Message::text(greeting)).await?;
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Close(_) => break,
            _ => {}
        }
    }
    Ok(())
}
