//! One thread that is all clients and all members: it never waits for another, and costs every proxy the
//! same.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

/// The site that is asked for, unless somebody says otherwise.
pub const HOST: &str = "www.site.com";
/// How long one answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);
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
    fn request(&self, host: &str) -> Vec<u8> {
        let head = format!("Host: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n");
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

/// Where clients connect to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The proxy.
    pub address: SocketAddr,
    /// With TLS, and whom to trust.
    pub tls: Option<Arc<ClientConfig>>,
    /// The kernel's buffer for what was not read yet, for clients that are slow.
    pub receive: Option<usize>,
}

impl Target {
    /// Without TLS.
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, receive: None }
    }
}

/// One side of a connection.
struct Side {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    /// Whom it asks; else it answers.
    asks: Option<Target>,
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

impl Side {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.write(bytes) };
        let taken = tls.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    /// What TLS has to say.
    fn flush(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                written => written?,
            };
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(std::io::Error::other)?;
            self.flush()?;
        }
    }
}

/// What came of reading once.
enum Progress {
    Nothing,
    More,
    Answered(Duration),
}

/// All connections, and what is sent on them.
pub struct Load {
    poll: Poll,
    events: Events,
    /// Whom the events were of, and whether it can be read from and written to.
    ready: Vec<(usize, bool, bool)>,
    listeners: Vec<TcpListener>,
    /// By their numbers; the first places are the listeners'.
    sides: Vec<Option<Side>>,
    buffer: Vec<u8>,
    request: Vec<u8>,
    answer: Vec<u8>,
    shape: Shape,
    /// How long it may sleep while nothing happens.
    sleep: Duration,
    /// How many connections a proxy has closed between two requests.
    pub closed: usize,
}

impl Load {
    /// Members that answer in this shape, each on an address of loopback, and clients that ask for the
    /// site.
    pub fn new(shape: &Shape, members: usize) -> Result<(Self, Vec<SocketAddr>)> {
        let listen = |_| StdListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = (0..members).map(listen).collect::<std::io::Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(StdListener::local_addr).collect::<Result<_, _>>()?;
        Ok((Self::with(shape, listeners, HOST)?, addresses))
    }

    /// Members that listen there, and clients that ask for a host.
    pub fn with(shape: &Shape, listeners: Vec<StdListener>, host: &str) -> Result<Self> {
        let poll = Poll::new()?;
        let register = |(number, listener): (usize, StdListener)| {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(number), Interest::READABLE)?;
            anyhow::Ok(listener)
        };
        let listeners = listeners.into_iter().enumerate().map(register);
        let listeners = listeners.collect::<Result<Vec<_>>>()?;
        let sides = listeners.iter().map(|_| None).collect();
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            ready: Vec::new(),
            listeners,
            sides,
            buffer: vec![0; CHUNK],
            request: shape.request(host),
            answer: shape.answer(),
            shape: shape.clone(),
            sleep: Duration::ZERO,
            closed: 0,
        })
    }

    /// Leaves the core to others while nothing happens, instead of being there at once for who wants
    /// something.
    pub const fn resting(mut self) -> Self {
        self.sleep = Duration::from_millis(100);
        self
    }

    /// Opens connections to a proxy; returns their numbers.
    pub fn connect(&mut self, to: &Target, count: usize) -> Result<Vec<usize>> {
        (0..count)
            .map(|_| {
                self.sides.push(None);
                let number = self.sides.len() - 1;
                self.open(number, to).map(|()| number)
            })
            .collect()
    }

    /// Ends connections.
    pub fn close(&mut self, clients: &[usize]) {
        for client in clients {
            self.sides[*client] = None;
        }
    }

    fn open(&mut self, number: usize, to: &Target) -> Result<()> {
        let tls = match &to.tls {
            Some(config) => Some(ClientConnection::new(Arc::clone(config), HOST.try_into()?)?),
            None => None,
        };
        self.add(number, connect(to)?, tls, Some(to.clone()))
    }

    fn add(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        tls: Option<ClientConnection>,
        asks: Option<Target>,
    ) -> Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), both)?;
        self.sides[number] = Some(Side {
            stream,
            tls,
            asks,
            head: Vec::new(),
            read: 0,
            whole: None,
            written: None,
            asked: Instant::now(),
            waits: false,
        });
        Ok(())
    }

    /// Each of these connections asks again as soon as it is answered, until the time is over. Returns
    /// when the last answer has come: how long each took, from the request to its last byte.
    pub fn run(&mut self, clients: &[usize], time: Duration) -> Result<Vec<Duration>> {
        let until = Instant::now() + time;
        let (mut latencies, mut answered) = (Vec::new(), Vec::new());
        for client in clients {
            self.ask(*client, Instant::now())?;
        }
        let mut open = clients.len();
        while open > 0 {
            self.turn(self.sleep, &mut answered, true)?;
            if answered.is_empty() && Instant::now() > until + PATIENCE {
                bail!("{open} answers have not come");
            }
            for (number, latency) in answered.drain(..) {
                latencies.push(latency);
                let now = Instant::now();
                if now < until {
                    self.ask(number, now)?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(latencies)
    }

    /// So many requests a second, whatever becomes of those before, as long as one of these connections
    /// is free; else they wait for one. Latencies are counted from when a request was due.
    pub fn run_at(
        &mut self,
        clients: &[usize],
        rate: f64,
        time: Duration,
    ) -> Result<Vec<Duration>> {
        let began = Instant::now();
        let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate);
        let (mut latencies, mut answered) = (Vec::new(), Vec::new());
        let mut free: VecDeque<usize> = clients.iter().copied().collect();
        let mut next = 0;
        while due(next) < began + time || latencies.len() < next {
            let now = Instant::now();
            ensure!(now < began + time + PATIENCE, "the answers have not come");
            while due(next) < began + time
                && due(next) <= now
                && let Some(client) = free.pop_front()
            {
                self.ask(client, due(next))?;
                next += 1;
            }
            let sleep = due(next).saturating_duration_since(Instant::now()).min(self.sleep);
            self.turn(sleep, &mut answered, true)?;
            for (number, latency) in answered.drain(..) {
                latencies.push(latency);
                free.push_back(number);
            }
        }
        Ok(latencies)
    }

    /// Each of these connections asks once, and reads only so many bytes of its answer in this time.
    /// Calls `look` again and again until all are answered.
    pub fn trickle(
        &mut self,
        clients: &[usize],
        (bytes, every): (usize, Duration),
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        for client in clients {
            self.ask(*client, Instant::now())?;
        }
        let mut waiting = clients.to_vec();
        let (mut none, mut next) = (Vec::new(), Instant::now());
        let end = next + PATIENCE;
        while !waiting.is_empty() {
            ensure!(Instant::now() < end, "{} answers have not come", waiting.len());
            self.turn(Duration::ZERO, &mut none, false)?;
            if Instant::now() < next {
                continue;
            }
            next += every;
            let mut left = Vec::new();
            for client in waiting {
                if !matches!(self.read_once(client, bytes)?, Progress::Answered(_)) {
                    left.push(client);
                }
            }
            waiting = left;
            look()?;
        }
        Ok(())
    }

    /// Does what can be done now; adds who was answered. Clients may be left out: then it is others
    /// who read for them.
    fn turn(
        &mut self,
        sleep: Duration,
        answered: &mut Vec<(usize, Duration)>,
        with_clients: bool,
    ) -> Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(sleep))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        self.ready.clear();
        let ready = self.events.iter().map(|e| (e.token().0, e.is_readable(), e.is_writable()));
        self.ready.extend(ready);
        for at in 0..self.ready.len() {
            let (number, is_readable, is_writable) = self.ready[at];
            if number < self.listeners.len() {
                self.accept(number)?;
                continue;
            }
            if is_writable {
                self.write(number)?;
            }
            let is_client = self.sides[number].as_ref().is_some_and(|side| side.asks.is_some());
            if is_readable
                && (with_clients || !is_client)
                && let Some(latency) = self.read(number)?
            {
                answered.push((number, latency));
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    self.sides.push(None);
                    self.add(self.sides.len() - 1, stream, None, None)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ask(&mut self, number: usize, at: Instant) -> Result<()> {
        if let Some(side) = &mut self.sides[number] {
            side.asked = at;
            side.waits = true;
            side.written = Some(0);
        }
        self.write(number)
    }

    fn write(&mut self, number: usize) -> Result<()> {
        let Some(side) = &mut self.sides[number] else { return Ok(()) };
        let message = if side.asks.is_some() { &self.request } else { &self.answer };
        let mut sent = side.flush();
        while let (Some(written), Ok(())) = (side.written, &sent) {
            if written == message.len() {
                side.written = None;
                break;
            }
            match side.send(&message[written..]) {
                // Its buffer is full.
                Ok(0) => break,
                Ok(more) => side.written = Some(written + more),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => sent = Err(error),
            }
        }
        match sent {
            Ok(()) => Ok(()),
            Err(error) => self.gone(number, &error.to_string()),
        }
    }

    /// Reads all that has come; a client whose answer is complete tells how long that took.
    fn read(&mut self, number: usize) -> Result<Option<Duration>> {
        loop {
            match self.read_once(number, CHUNK)? {
                Progress::Nothing => return Ok(None),
                Progress::More => {}
                Progress::Answered(latency) => return Ok(Some(latency)),
            }
        }
    }

    /// Reads some of what has come; a member answers what is complete.
    fn read_once(&mut self, number: usize, most: usize) -> Result<Progress> {
        let Some(side) = &mut self.sides[number] else { return Ok(Progress::Nothing) };
        let read = match side.receive(&mut self.buffer[..most]) {
            Ok(0) => return self.gone(number, "closed").map(|()| Progress::Nothing),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Nothing),
            Err(error) => return self.gone(number, &error.to_string()).map(|()| Progress::Nothing),
        };
        side.read += read;
        if side.whole.is_none() {
            side.head.extend_from_slice(&self.buffer[..read]);
            let end = side.head.windows(4).position(|four| four == b"\r\n\r\n");
            let body = if side.asks.is_some() { self.shape.download } else { self.shape.upload };
            side.whole = end.map(|end| end + 4 + body);
            if side.asks.is_some() && end.is_some() && !side.head.starts_with(b"HTTP/1.1 200") {
                bail!("{}", String::from_utf8_lossy(&side.head));
            }
        }
        if side.whole.is_none_or(|whole| side.read < whole) {
            return Ok(Progress::More);
        }
        side.head.clear();
        side.whole = None;
        side.read = 0;
        if side.asks.is_some() {
            side.waits = false;
            return Ok(Progress::Answered(side.asked.elapsed()));
        }
        side.written = Some(0);
        self.write(number).map(|()| Progress::More)
    }

    /// A client whose connection is closed, as proxies may, opens another; within an answer they may
    /// not.
    fn gone(&mut self, number: usize, why: &str) -> Result<()> {
        let Some(side) = self.sides[number].take() else { return Ok(()) };
        let Some(to) = side.asks else { return Ok(()) };
        if side.read > 0 {
            bail!("the proxy has broken an answer off: {why}");
        }
        self.closed += 1;
        self.open(number, &to)?;
        if side.waits { self.ask(number, side.asked) } else { Ok(()) }
    }
}

fn connect(to: &Target) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to.address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(receive) = to.receive {
        socket.set_recv_buffer_size(receive)?;
    }
    socket.connect_timeout(&to.address.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}
