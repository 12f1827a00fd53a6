//! A member that speaks HTTP/2 frame by frame, so that it can do what no library would.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::LIMIT;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;

/// A frame as it was read.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn begins(&self) -> bool {
        self.kind == HEADERS
    }

    pub fn ends(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A whole answer: 200 with a body.
pub fn answer(stream: u32, body: &str) -> Vec<u8> {
    // `:status: 200` is the eighth entry of the static table (RFC 7541, appendix A).
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &[0x88]);
    bytes.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
    bytes
}

pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

pub fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, section 6.5.2).
pub fn max_streams(streams: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 3], &streams.to_be_bytes()[..]].concat())
}

/// What a connection writes; can be handed out.
pub type Writer = Arc<Mutex<TcpStream>>;

/// A frame of the `connection`th connection is there.
type Script = Box<dyn FnMut(usize, &Frame, &Writer) + Send>;

pub struct FrameMember {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl FrameMember {
    /// One that says `settings` first and does as the script does.
    pub fn new(
        settings: Vec<u8>,
        script: impl FnMut(usize, &Frame, &Writer) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = counted.fetch_add(1, SeqCst);
                let (script, settings) = (Arc::clone(&script), settings.clone());
                std::thread::spawn(move || serve(number, stream, &settings, &script));
            }
        });
        Self { address, connections }
    }

    pub fn count(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

fn serve(number: usize, mut stream: TcpStream, settings: &[u8], script: &Mutex<Script>) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = stream.set_nodelay(true);
    let writer: Writer = Arc::new(Mutex::new(stream.try_clone().unwrap()));
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).is_err() || preface != PREFACE {
        return;
    }
    let _ = writer.lock().unwrap().write_all(settings);
    while let Some(frame) = read(&mut stream) {
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            let _ = writer.lock().unwrap().write_all(&self::frame(SETTINGS, ACK, 0, &[]));
        }
        script.lock().unwrap()(number, &frame, &writer);
    }
}

fn read(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind: head[3], flags: head[4], stream: number & (u32::MAX >> 1), payload })
}
