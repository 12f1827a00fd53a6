//! A tunnel between a client and a member after 101 (Switching Protocols): bytes both ways until
//! both sides have ended, or both have been silent for too long.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::io::Way;

/// Bytes carried at once in one direction.
const BUFFER: usize = 16 * 1024;

/// Carries bytes both ways, from a member from which some were read; returns how many went to the
/// client.
pub async fn carry(client: Upgraded, (member, read): (Way, Bytes), idle: Duration) -> u64 {
    let (client_in, client_out) = tokio::io::split(TokioIo::new(client));
    let (member_in, member_out) = tokio::io::split(member);
    let member_in = (&*read).chain(member_in);
    let moved = Cell::new(Instant::now());
    let (to_client, to_member) = (Cell::new(0), Cell::new(0));
    let both = async {
        tokio::join!(
            copy(client_in, member_out, &moved, &to_member),
            copy(member_in, client_out, &moved, &to_client),
        )
    };
    tokio::select! {
        _ = both => {}
        () = silence(&moved, idle) => {}
    }
    to_client.get()
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
    bytes: &Cell<u64>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await;
        let Ok(read @ 1..) = read else {
            // The other direction may go on: only this one has ended.
            to.shutdown().await?;
            return read.map(drop);
        };
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.set(Instant::now());
        bytes.set(bytes.get() + read as u64);
    }
}

async fn silence(moved: &Cell<Instant>, idle: Duration) {
    while moved.get().elapsed() < idle {
        tokio::time::sleep_until((moved.get() + idle).into()).await;
    }
}
