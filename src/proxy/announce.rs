//! The PROXY protocol, versions 1 and 2: a balancer in front says who the client is, before the
//! client's first byte (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use ppp::v2::Command;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of that, of the version and command, the protocol and the length.
const FIXED: usize = 16;
/// The longest header of version 1.
const LONGEST_1: usize = 107;
/// The longest of version 2 that is read; addresses and a few extensions need far less.
const LONGEST_2: usize = 4096;

/// Reads the header, and not a byte more. The address of the client; none if the balancer speaks for
/// itself, as it does to see whether this end lives.
///
/// # Errors
/// When there is no such header.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(FIXED, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
        if FIXED + length > LONGEST_2 {
            return Err(ErrorKind::InvalidData.into());
        }
        header.resize(FIXED + length, 0);
        stream.read_exact(&mut header[FIXED..]).await?;
        return second(&header);
    }
    // What follows the line is the client's: it is read byte by byte.
    while !header.ends_with(b"\r\n") {
        if header.len() >= LONGEST_1 || !header.starts_with(b"PROXY ") {
            return Err(ErrorKind::InvalidData.into());
        }
        header.push(stream.read_u8().await?);
    }
    first(&header)
}

fn first(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v1::Header::try_from(header).map_err(|_| ErrorKind::InvalidData)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
    })
}

fn second(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(header).map_err(|_| ErrorKind::InvalidData)?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
        (Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read, and what is left.
    fn tried(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = bytes;
        let result = runtime.block_on(read(&mut stream));
        (result, stream.len())
    }

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    #[test]
    fn both_versions_name_the_client_and_leave_the_rest() {
        let four = [203, 0, 113, 9, 192, 0, 2, 1, 0x1f, 0x90, 0, 80];
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0, 99, 0, 80]].concat();
        for (header, client) in [
            (b"PROXY TCP4 203.0.113.9 192.0.2.1 8080 80\r\n".to_vec(), Some("203.0.113.9:8080")),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 99 80\r\n".to_vec(), Some("[2001:db8::9]:99")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ff:: ff:: 1 2\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &four), Some("203.0.113.9:8080")),
            (version_2(0x21, 0x21, &six), Some("[2001:db8::9]:99")),
            // With an extension behind the addresses.
            (version_2(0x21, 0x11, &[&four[..], &[4, 0, 1, 0]].concat()), Some("203.0.113.9:8080")),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x20, 0x11, &four), None),
        ] {
            let (read, left) = tried(&[&header[..], b"GET"].concat());
            assert_eq!(read.unwrap().map(|at| at.to_string()).as_deref(), client, "{header:?}");
            assert_eq!(left, 3, "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.9 192.0.2.1 8080\r\n",
            b"PROXY TCP4 203.0.113.900 192.0.2.1 8080 80\r\n",
            b"PROXY TCP4 203.0.113.9",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            &version_2(0x31, 0x11, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 4]),
            &version_2(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(tried(bytes).0.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_is_a_panic(rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            for begin in [&b""[..], b"PROXY ", b"PROXY TCP4 ", SIGNATURE] {
                let _ = tried(&[begin, &rest].concat());
            }
        }
    }
}
