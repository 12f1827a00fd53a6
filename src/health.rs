//! Whether Gibbon is ready, and what its sources complain of: what `/readyz` says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by those who know and by the admin pages.
#[derive(Debug, Default)]
pub struct Health {
    serving: AtomicBool,
    ending: AtomicBool,
    complaints: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Health {
    /// The first table is in use.
    pub fn set_serving(&self) {
        self.serving.store(true, Relaxed);
    }

    /// Whether a table is in use.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Relaxed)
    }

    /// The process is about to end: load balancers should look elsewhere.
    pub fn set_ending(&self) {
        self.ending.store(true, Relaxed);
    }

    /// Whether new connections are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.serving.load(Relaxed) && !self.ending.load(Relaxed)
    }

    /// What is wrong with a source now; nothing, if `complaints` is empty. True if that is news.
    pub fn complain(&self, source: &str, complaints: &[String]) -> bool {
        let mut all = self.lock();
        let before = if complaints.is_empty() {
            all.remove(source)
        } else {
            all.insert(source.to_owned(), complaints.to_vec())
        };
        before.unwrap_or_default() != complaints
    }

    /// What is wrong, by source.
    #[must_use]
    pub fn complaints(&self) -> BTreeMap<String, Vec<String>> {
        self.lock().clone()
    }

    /// The long form of `/readyz`, a line each.
    #[must_use]
    pub fn describe(&self) -> String {
        let mark = |good| if good { "[+]" } else { "[-]" };
        let serving = self.serving.load(Relaxed);
        let ending = self.ending.load(Relaxed);
        let mut text =
            format!("{} table in use\n{} not shutting down\n", mark(serving), mark(!ending));
        let complaints = self.complaints();
        if complaints.is_empty() {
            text.push_str("[+] all sources are in use as they are\n");
        }
        for (source, complaints) in complaints {
            for complaint in complaints {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "[!] {source}: {complaint}");
            }
        }
        text.push_str(if self.is_ready() { "ready\n" } else { "not ready\n" });
        text
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_source_is_named_and_does_not_end_readiness() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.set_serving();
        assert!(health.complain("a.yaml", &["line 3: spec.path: must begin with /".into()]));
        assert!(!health.complain("a.yaml", &["line 3: spec.path: must begin with /".into()]));
        assert!(health.is_ready());
        assert!(health.describe().contains("[!] a.yaml: line 3: spec.path"));
        assert!(health.complain("a.yaml", &[]));
        assert!(health.describe().contains("[+] all sources"));
    }

    #[test]
    fn who_is_ending_is_not_ready() {
        let health = Health::default();
        health.set_serving();
        health.set_ending();
        assert!(!health.is_ready());
        assert!(health.describe().ends_with("not ready\n"));
    }
}
