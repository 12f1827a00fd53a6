//! The last requests that are kept: as many that were drawn, and as many that failed, so that neither
//! drives out the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Because, Explanation};

type Ring = VecDeque<Arc<Explanation>>;

/// Written at the end of a request that is kept, and by no other; read by the admin pages.
#[derive(Debug)]
pub struct Kept {
    most: usize,
    drawn: Mutex<Ring>,
    failed: Mutex<Ring>,
}

impl Kept {
    /// Keeps so many of each kind.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, drawn: Mutex::default(), failed: Mutex::default() }
    }

    /// Whether any are kept.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.most > 0
    }

    /// Keeps one, in place of the oldest.
    pub fn keep(&self, explanation: Explanation) {
        let drawn = explanation.because.iter().all(|reason| *reason == Because::Sampled);
        let explanation = Arc::new(explanation);
        let mut ring = lock(if drawn { &self.drawn } else { &self.failed });
        let oldest = if ring.len() >= self.most { ring.pop_front() } else { None };
        if self.is_open() {
            ring.push_back(explanation);
        }
        drop(ring);
        // Freed when others can go on.
        drop(oldest);
    }

    /// All that have this id, the newest first: clients may use one twice.
    #[must_use]
    pub fn find(&self, id: &str) -> Vec<Arc<Explanation>> {
        let mut found = self.all();
        found.retain(|explanation| explanation.id.as_deref() == Some(id));
        found
    }

    /// All, the newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Explanation>> {
        let mut all: Vec<_> = lock(&self.drawn).iter().cloned().collect();
        all.extend(lock(&self.failed).iter().cloned());
        all.sort_by_key(|explanation| std::cmp::Reverse(explanation.at));
        all
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn explanation(id: usize, because: Because) -> Explanation {
        Explanation {
            id: Some(id.to_string().into()),
            at: Timestamp::from_second(i64::try_from(id).unwrap()).unwrap(),
            because: vec![because],
            ..Explanation::default()
        }
    }

    #[test]
    fn the_newest_of_each_kind_are_kept_and_no_more() {
        let kept = Kept::new(3);
        for id in 0..100 {
            kept.keep(explanation(id, Because::Failed));
            if id % 40 == 0 {
                kept.keep(explanation(1000 + id, Because::Sampled));
            }
        }
        let ids: Vec<_> = kept.all().iter().map(|e| e.id.clone().unwrap().into_string()).collect();
        assert_eq!(ids, ["1080", "1040", "1000", "99", "98", "97"]);
        assert!(kept.find("5").is_empty());
        assert_eq!(kept.find("99").len(), 1);
    }

    #[test]
    fn an_id_that_was_used_twice_finds_both() {
        let kept = Kept::new(3);
        kept.keep(explanation(1, Because::Failed));
        kept.keep(Explanation { at: Timestamp::MAX, ..explanation(1, Because::Retried) });
        let found: Vec<_> = kept.find("1").iter().map(|e| e.because[0].label()).collect();
        assert_eq!(found, ["retried", "failed"]);
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be() {
        let kept = Kept::new(0);
        kept.keep(explanation(1, Because::Failed));
        assert!(kept.all().is_empty() && !kept.is_open());
    }
}
