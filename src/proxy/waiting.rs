//! Waiting for a member where all that could serve have as many requests as they may have.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::table::Route;
use crate::table::queue::Place;

/// How often a request that waits looks by itself: members also come back, and are shared with other
/// rules.
const LOOK: Duration = Duration::from_millis(50);

/// A request's patience, and its place in the line once it needs one.
#[derive(Debug, Default)]
pub struct Waiting(Option<(Place, Instant)>);

impl Waiting {
    /// Waits until something may be free; false if there is no place in the line or no time left.
    /// From its first call on, nothing is missed that becomes free between two calls.
    pub async fn more(&mut self, route: &Route, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        if let Some((place, until)) = &self.0 {
            place.pass();
            let look = (now + LOOK).min(*until).into();
            let _called = timeout_at(look, poll_fn(|cx| place.poll_called(cx.waker()))).await;
            place.stand();
            return Instant::now() < *until;
        }
        let until = now + route.rule.queue_for;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        if until <= now {
            return false;
        }
        let Some(place) = route.queue.enter(route.room) else { return false };
        route.tally.queued.inc();
        place.stand();
        self.0 = Some((place, until));
        true
    }
}
