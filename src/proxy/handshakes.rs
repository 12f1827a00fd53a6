//! What comes before the first request, so that those who open and stall hold nobody up: it is limited
//! in time, and in number at once. Where the limit is reached, the oldest of the network that has the
//! most under way makes room; who is alone in a network is the last to go.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// What is under way on one listener.
#[derive(Debug)]
pub struct Handshakes {
    limit: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    number: u64,
    count: usize,
    /// By network, then by age.
    networks: HashMap<IpAddr, BTreeMap<u64, Arc<Notify>>>,
}

/// Why something did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It took too long.
    TimedOut,
    /// It made room for another.
    CrowdedOut,
}

impl Cut {
    /// The label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::CrowdedOut => "crowded_out",
        }
    }
}

impl Handshakes {
    /// So many may be under way at once, and always one.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), under_way: Mutex::default() })
    }

    /// Runs what a client must do within this time, and while there is room.
    ///
    /// # Errors
    /// When it was cut off.
    pub async fn run<T>(
        &self,
        client: IpAddr,
        patience: Duration,
        what: impl Future<Output = T>,
    ) -> Result<T, Cut> {
        let place = self.enter(client);
        tokio::select! {
            biased;
            result = timeout(patience, what) => result.map_err(|_| Cut::TimedOut),
            () = place.leave.notified() => Err(Cut::CrowdedOut),
        }
    }

    fn enter(&self, client: IpAddr) -> Place<'_> {
        let network = network(client);
        let leave = Arc::new(Notify::new());
        let mut under_way = self.lock();
        under_way.number += 1;
        let number = under_way.number;
        under_way.networks.entry(network).or_default().insert(number, Arc::clone(&leave));
        under_way.count += 1;
        if under_way.count > self.limit {
            under_way.make_room();
        }
        Place { handshakes: self, network, number, leave }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn make_room(&mut self) {
        let crowd = |(_, places): &(&IpAddr, &BTreeMap<u64, Arc<Notify>>)| {
            (places.len(), std::cmp::Reverse(places.keys().next().copied()))
        };
        let busiest = self.networks.iter().max_by_key(crowd);
        let oldest = busiest.and_then(|(network, places)| {
            let (number, leave) = places.first_key_value()?;
            leave.notify_one();
            Some((*network, *number))
        });
        if let Some((network, number)) = oldest {
            self.remove(network, number);
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) {
        let Some(places) = self.networks.get_mut(&network) else { return };
        if places.remove(&number).is_some() {
            self.count -= 1;
        }
        if places.is_empty() {
            self.networks.remove(&network);
        }
    }
}

/// A place that is taken until this is dropped.
struct Place<'h> {
    handshakes: &'h Handshakes,
    network: IpAddr,
    number: u64,
    leave: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.lock().remove(self.network, self.number);
    }
}

/// Whoever has one address of IPv6 has the other 2^64 of its network too.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is still there after these have come, by their numbers.
    fn left(limit: usize, clients: &[&str]) -> Vec<usize> {
        let handshakes = Handshakes::new(limit);
        let places: Vec<_> =
            clients.iter().map(|client| handshakes.enter(client.parse().unwrap())).collect();
        let under_way = handshakes.lock();
        assert_eq!(under_way.count, limit.min(clients.len()));
        let is_left = |place: &Place<'_>| {
            let places = under_way.networks.get(&place.network);
            places.is_some_and(|places| places.contains_key(&place.number))
        };
        let left = places.iter().enumerate().filter(|(_, place)| is_left(place));
        let left = left.map(|(at, _)| at).collect();
        drop(under_way);
        drop(places);
        assert!(handshakes.lock().networks.is_empty() && handshakes.lock().count == 0);
        left
    }

    #[test]
    fn the_oldest_of_the_busiest_makes_room() {
        let (a, b, c) = ("192.0.2.1", "192.0.2.2", "192.0.2.3");
        assert_eq!(left(3, &[a, b, c]), [0, 1, 2]);
        assert_eq!(left(3, &[b, a, a, a]), [0, 2, 3]);
        assert_eq!(left(3, &[a, a, a, b, c]), [2, 3, 4]);
        // Of equals, the oldest of all.
        assert_eq!(left(2, &[a, b, c]), [1, 2]);
        assert_eq!(left(1, &[a, a]), [1]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_ipv4_within_it_is_ipv4() {
        let near = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"];
        assert_eq!(left(3, &[near[0], near[1], near[2], "2001:db8:0:1::1", "::1"]), [2, 3, 4]);
        assert_eq!(left(2, &["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"]), [1, 2]);
    }

    #[test]
    fn who_is_crowded_out_hears_of_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let handshakes = Handshakes::new(1);
        let client = IpAddr::from([192, 0, 2, 1]);
        let hour = Duration::from_secs(3600);
        runtime.block_on(async {
            let stalled = handshakes.run(client, hour, std::future::pending::<()>());
            let next = async {
                tokio::task::yield_now().await;
                handshakes.run(client, hour, async { 7 }).await
            };
            let (stalled, next) = tokio::join!(stalled, next);
            assert_eq!((stalled, next), (Err(Cut::CrowdedOut), Ok(7)));
            let late = handshakes.run(client, Duration::ZERO, std::future::pending::<()>()).await;
            assert_eq!(late, Err(Cut::TimedOut));
        });
    }
}
