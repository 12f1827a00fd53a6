//! Requests that wait, first come, first served, for a member that has as many as it may have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The requests that wait for a member of one rule.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many wait; looked at where nobody does.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

/// Those that were not called yet, by number.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    standing: BTreeMap<u64, Option<Waker>>,
}

impl Queue {
    /// Takes a place; none if `room` are taken.
    #[must_use]
    pub fn enter(self: &Arc<Self>, room: usize) -> Option<Place> {
        let more = |waiting: usize| (waiting < room).then_some(waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, more).ok()?;
        let mut line = self.line();
        let number = line.next;
        line.next += 1;
        drop(line);
        Some(Place { queue: Arc::clone(self), number })
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// A member may have one more: calls the first that stands.
    pub fn call(&self) {
        if self.waiting() > 0 {
            self.call_from(0);
        }
    }

    fn call_from(&self, number: u64) {
        let mut line = self.line();
        let first = line.standing.range(number..).next().map(|(number, _)| *number);
        let called = first.and_then(|number| line.standing.remove(&number)).flatten();
        drop(line);
        if let Some(waker) = called {
            waker.wake();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place in a queue, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    number: u64,
}

impl Place {
    /// Stands in the line, in its place. What becomes free from now on is not missed.
    pub fn stand(&self) {
        self.queue.line().standing.entry(self.number).or_default();
    }

    /// Ready when it was called since it stood.
    pub fn poll_called(&self, waker: &Waker) -> Poll<()> {
        match self.queue.line().standing.get_mut(&self.number) {
            Some(standing) => {
                *standing = Some(waker.clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// What has become free is not for this request: the next is called.
    pub fn pass(&self) {
        self.queue.call_from(self.number + 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, SeqCst);
        let stood = self.queue.line().standing.remove(&self.number).is_some();
        if !stood {
            // It was called, and may not have taken what is free.
            self.queue.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_called(place: &Place) -> bool {
        place.poll_called(Waker::noop()).is_ready()
    }

    fn standing(queue: &Arc<Queue>) -> Place {
        let place = queue.enter(10).unwrap();
        place.stand();
        place
    }

    #[test]
    fn who_came_first_is_called_first_and_keeps_its_place() {
        let queue = Arc::<Queue>::default();
        let [a, b] = [standing(&queue), standing(&queue)];
        queue.call();
        assert!(is_called(&a) && !is_called(&b));
        // Another was quicker: it stands again, before the second.
        a.stand();
        queue.call();
        assert!(is_called(&a) && !is_called(&b));
    }

    #[test]
    fn what_is_not_for_the_first_is_for_the_next() {
        let queue = Arc::<Queue>::default();
        let [a, b, c] = [standing(&queue), standing(&queue), standing(&queue)];
        queue.call();
        a.stand();
        a.pass();
        assert!(!is_called(&a) && is_called(&b) && !is_called(&c));
        // The second has gone meanwhile.
        drop(b);
        assert!(is_called(&a));
        drop(a);
        assert!(is_called(&c));
        assert_eq!(queue.waiting(), 1);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let queue = Arc::<Queue>::default();
        let place = queue.enter(1).unwrap();
        assert!(queue.enter(1).is_none());
        drop(place);
        assert!(queue.enter(1).is_some());
        assert!(queue.enter(0).is_none());
    }
}
