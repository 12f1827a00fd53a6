//! Changes of the cluster, and when clients notice them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::gibbon::Gibbon;
use crate::made::{host, set_of};
use crate::objects::{MEMBER_PORT, Objects, SLICES};
use crate::support::Client;

/// Between two requests that look whether a change is effective.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two requests of the load.
const LOAD_PAUSE: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(60);

/// Makes changes, and waits until a request shows them.
pub struct Probe<'o> {
    objects: &'o Objects,
    address: SocketAddr,
    heard: Arc<Mutex<HashMap<String, Instant>>>,
    sets: Mutex<HashMap<usize, usize>>,
}

/// How long a change took to be effective.
pub struct Change {
    /// Since the API server has acknowledged it; zero if it was effective before.
    since_written: Duration,
    /// Since a watch has told of it, here.
    since_heard: Duration,
}

/// Median and worst of both times.
pub fn summary(changes: &[Change]) -> String {
    format!(
        "{} after the watch event; {} after the write",
        spread(changes.iter().map(|change| change.since_heard).collect()),
        spread(changes.iter().map(|change| change.since_written).collect()),
    )
}

/// Median and worst.
pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let millis = |time: Option<&Duration>| time.map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
    format!(
        "{:.1} ms, at most {:.1} ms ({})",
        millis(times.get(times.len() / 2)),
        millis(times.last()),
        times.len()
    )
}

impl<'o> Probe<'o> {
    /// Serves the members, and watches what Gibbon watches.
    pub fn new(objects: &'o Objects, gibbon: &Gibbon) -> Result<Self> {
        serve_members()?;
        let heard = Arc::<Mutex<HashMap<String, Instant>>>::default();
        let copy = Arc::clone(&heard);
        objects.watch(SLICES, move |object| {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            copy.lock().unwrap().insert(version.to_owned(), Instant::now());
        })?;
        Ok(Self { objects, address: gibbon.address, heard, sets: Mutex::default() })
    }

    /// Replaces the endpoints of a Service by others.
    pub fn change(&self, at: usize) -> Result<Change> {
        let at = at % 100;
        let set = 1 - *self.sets.lock().unwrap().entry(at).or_default();
        self.sets.lock().unwrap().insert(at, set);
        let effective = self.poll(host(at), move |status, body| {
            status == 200 && body.parse().is_ok_and(|address| set_of(address) == set)
        });
        let version = self.objects.change(at, set)?;
        let written = Instant::now();
        let effective = effective.join().expect("no panic")?;
        let end = Instant::now() + LIMIT;
        let heard = loop {
            if let Some(heard) = self.heard.lock().unwrap().get(&version) {
                break *heard;
            }
            ensure!(Instant::now() < end, "the change is not told of");
            std::thread::sleep(PAUSE);
        };
        Ok(Change {
            since_written: effective.saturating_duration_since(written),
            since_heard: effective.saturating_duration_since(heard),
        })
    }

    /// Creates a Balancer; how long it takes until it is served.
    pub fn new_balancer(&self, objects: &Objects, at: usize) -> Result<Duration> {
        let host = format!("new-{at}.example.org");
        let served = self.poll(host.clone(), |status, _| status == 200);
        objects.create_balancer(at, &host)?;
        let written = Instant::now();
        Ok(served.join().expect("no panic")?.saturating_duration_since(written))
    }

    /// Asks until it is answered so; returns when that was.
    fn poll(
        &self,
        host: String,
        is: impl Fn(u16, &str) -> bool + Send + 'static,
    ) -> JoinHandle<Result<Instant>> {
        let address = self.address;
        std::thread::spawn(move || {
            let mut client = Client::new(address);
            let end = Instant::now() + LIMIT;
            loop {
                let seen = ask(&mut client, &host)?;
                if is(seen.0, &seen.1) {
                    return Ok(Instant::now());
                }
                ensure!(Instant::now() < end, "{host}: not in time; the last was {seen:?}");
                std::thread::sleep(PAUSE);
            }
        })
    }
}

fn ask(client: &mut Client, host: &str) -> Result<(u16, String)> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let seen = client.send(request).read().context("no answer")?;
    Ok((seen.status, seen.text()))
}

/// Requests one after the other, and how long each took.
pub struct Load {
    going: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Load {
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let (goes, host) = (Arc::clone(&going), host.to_owned());
        let thread = std::thread::spawn(move || {
            let mut client = Client::new(address);
            let mut times = Vec::new();
            while goes.load(SeqCst) {
                let began = Instant::now();
                let (status, _) = ask(&mut client, &host).unwrap();
                assert_eq!(status, 200, "a request was lost");
                times.push(began.elapsed());
                std::thread::sleep(LOAD_PAUSE);
            }
            times
        });
        Self { going, thread }
    }

    pub fn stop(self) -> Vec<Duration> {
        self.going.store(false, SeqCst);
        self.thread.join().expect("no request is lost")
    }
}

/// All members: each answers with its own address.
fn serve_members() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, MEMBER_PORT))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve_member(stream));
        }
    });
    Ok(())
}

fn serve_member(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let IpAddr::V4(address) = stream.local_addr()?.ip() else { return Ok(()) };
    let body = address.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            stream.write_all(answer.as_bytes())?;
        }
    }
    Ok(())
}
