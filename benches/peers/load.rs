//! One thread that is all clients and all members: it never waits for another, and costs every proxy the
//! same.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// How long one answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Read at once.
const CHUNK: usize = 256 * 1024;

/// What is asked and answered.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How the table calls it.
    pub name: &'static str,
    /// Bytes that a request brings.
    pub upload: usize,
    /// Bytes that its answer brings.
    pub download: usize,
}

impl Shape {
    fn request(&self) -> Vec<u8> {
        let head = "Host: www.site.com\r\nUser-Agent: bench\r\nAccept: */*\r\n";
        match self.upload {
            0 => format!("GET /shop/item HTTP/1.1\r\n{head}\r\n").into_bytes(),
            length => {
                let head =
                    format!("POST /shop/item HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n");
                [head.into_bytes(), vec![b'u'; length]].concat()
            }
        }
    }

    fn answer(&self) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: member\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.download
        );
        [head.into_bytes(), vec![b'd'; self.download]].concat()
    }
}

/// What a window has shown.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// From request to the last byte of its answer, in the order of their ends.
    pub latencies: Vec<Duration>,
}

/// One side of a connection.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// Whom it asks; else it answers.
    asks: Option<SocketAddr>,
    /// Bytes of the message that is read: its head until that is complete, then only counted.
    head: Vec<u8>,
    read: usize,
    whole: Option<usize>,
    /// What of the message that is written has gone out; none: nothing is to be written.
    written: Option<usize>,
    asked: Instant,
    /// Its answer has not come.
    waits: bool,
}

/// All connections, and what is sent on them.
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    members: Vec<(TcpListener, SocketAddr)>,
    sides: HashMap<usize, Side>,
    next: usize,
    buffer: Vec<u8>,
    request: Vec<u8>,
    answer: Vec<u8>,
    shape: Shape,
}

impl Load {
    /// Members that answer in this shape.
    pub fn new(shape: &Shape, members: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for number in 0..members {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(number), Interest::READABLE)?;
            listeners.push((listener, address));
        }
        Ok(Self {
            poll,
            members: listeners,
            sides: HashMap::new(),
            next: members,
            buffer: vec![0; CHUNK],
            request: shape.request(),
            answer: shape.answer(),
            shape: shape.clone(),
        })
    }

    /// Where the members are.
    pub fn members(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|(_, address)| *address).collect()
    }

    /// Opens connections to a proxy; returns their numbers.
    pub fn connect(&mut self, to: SocketAddr, count: usize) -> Result<Vec<usize>> {
        (0..count)
            .map(|_| {
                let number = self.next;
                self.next += 1;
                self.add(number, open(to)?, Some(to)).map(|()| number)
            })
            .collect()
    }

    fn add(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        asks: Option<SocketAddr>,
    ) -> Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), both)?;
        let side = Side {
            stream,
            asks,
            head: Vec::new(),
            read: 0,
            whole: None,
            written: None,
            asked: Instant::now(),
            waits: false,
        };
        self.sides.insert(number, side);
        Ok(())
    }

    /// Each of these connections asks again as soon as it is answered, until the time is over; returns
    /// when the last answer has come.
    pub fn run(&mut self, clients: &[usize], time: Duration) -> Result<Window> {
        let until = Instant::now() + time;
        let mut window = Window::default();
        for client in clients {
            self.ask(*client)?;
        }
        let mut open = clients.len();
        let mut events = Events::with_capacity(1024);
        while open > 0 {
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            if events.is_empty() && Instant::now() > until + PATIENCE {
                bail!("{open} answers have not come");
            }
            for event in &events {
                let number = event.token().0;
                if number < self.members.len() {
                    self.accept(number)?;
                    continue;
                }
                if event.is_writable() {
                    self.write(number)?;
                }
                if event.is_readable()
                    && let Some(latency) = self.read(number)?
                {
                    window.latencies.push(latency);
                    if Instant::now() < until {
                        self.ask(number)?;
                    } else {
                        open -= 1;
                    }
                }
            }
        }
        Ok(window)
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            match self.members[listener].0.accept() {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    self.next += 1;
                    self.add(self.next - 1, stream, None)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ask(&mut self, number: usize) -> Result<()> {
        if let Some(side) = self.sides.get_mut(&number) {
            side.asked = Instant::now();
            side.waits = true;
            side.written = Some(0);
        }
        self.write(number)
    }

    fn write(&mut self, number: usize) -> Result<()> {
        let Some(side) = self.sides.get_mut(&number) else { return Ok(()) };
        let message = if side.asks.is_some() { &self.request } else { &self.answer };
        while let Some(written) = side.written {
            if written == message.len() {
                side.written = None;
                break;
            }
            match side.stream.write(&message[written..]) {
                Ok(more) => side.written = Some(written + more),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.gone(number, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Reads what has come; a member answers what is complete, and a client tells how long that took.
    fn read(&mut self, number: usize) -> Result<Option<Duration>> {
        loop {
            let Some(side) = self.sides.get_mut(&number) else { return Ok(None) };
            let read = match side.stream.read(&mut self.buffer) {
                Ok(0) => return self.gone(number, "closed").map(|()| None),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return self.gone(number, &error.to_string()).map(|()| None),
            };
            side.read += read;
            if side.whole.is_none() {
                side.head.extend_from_slice(&self.buffer[..read]);
                let end = side.head.windows(4).position(|four| four == b"\r\n\r\n");
                let body =
                    if side.asks.is_some() { self.shape.download } else { self.shape.upload };
                side.whole = end.map(|end| end + 4 + body);
                if side.asks.is_some() && end.is_some() && !side.head.starts_with(b"HTTP/1.1 200") {
                    bail!("{}", String::from_utf8_lossy(&side.head));
                }
            }
            if side.whole.is_some_and(|whole| side.read >= whole) {
                side.head.clear();
                side.whole = None;
                side.read = 0;
                if side.asks.is_some() {
                    side.waits = false;
                    return Ok(Some(side.asked.elapsed()));
                }
                side.written = Some(0);
                self.write(number)?;
            }
        }
    }

    /// A client whose connection is closed, as proxies may, opens another; within an answer they may
    /// not.
    fn gone(&mut self, number: usize, why: &str) -> Result<()> {
        let Some(side) = self.sides.remove(&number) else { return Ok(()) };
        let Some(to) = side.asks else { return Ok(()) };
        if side.read > 0 {
            bail!("the proxy has broken an answer off: {why}");
        }
        self.add(number, open(to)?, Some(to))?;
        if side.waits { self.ask(number) } else { Ok(()) }
    }
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = StdStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}
