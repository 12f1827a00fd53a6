//! Ports for programs that are told theirs before they start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Below what systems hand out to who asks for any port, so that no such socket comes between.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// An address that nobody listens on; another for each call.
///
/// # Panics
/// When all ports are in use.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes begin far from one another.
    let first = std::process::id().wrapping_mul(7919);
    let port = (0..count).find_map(|_| {
        let at = first.wrapping_add(NEXT.fetch_add(1, Relaxed)) % count;
        let port = u16::try_from(PORTS.start + at).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    });
    (Ipv4Addr::LOCALHOST, port.expect("a free port")).into()
}
