//! Where rules come from: rules and endpoints → [`Table::build`] → swap. Keeps the last good table.

pub mod balancer;
pub mod certificate;
pub mod document;
pub mod endpoints;
pub mod files;
pub mod kubernetes;
pub mod names;
pub mod policy;
pub mod status;
pub mod trust;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::metrics::Metrics;
use crate::table::owners::Owners;
use crate::table::{Endpoints, Rule, ServicePort, Table, Users};

/// Builds tables and puts them in use.
#[derive(Debug)]
pub struct Publisher {
    table: Arc<ArcSwap<Table>>,
    metrics: Arc<Metrics>,
    /// Replaced tables, kept until nobody else has them: so no request pays for freeing one.
    replaced: Vec<Arc<Table>>,
    users: Users,
}

impl Publisher {
    /// One that puts tables in use at `table`.
    #[must_use]
    pub fn new(table: Arc<ArcSwap<Table>>, metrics: Arc<Metrics>) -> Self {
        Self { table, metrics, replaced: Vec::new(), users: Users::default() }
    }

    /// Puts these rules in use, with what is known of their addresses and of who owns which host.
    pub fn publish(
        &mut self,
        rules: &[Arc<Rule>],
        endpoints: &Endpoints,
        owners: Option<&Arc<Owners>>,
    ) -> Arc<Table> {
        let previous = self.table.load_full();
        let next = Table::build(rules, endpoints, owners, &previous, Instant::now());
        let known: HashSet<_> = previous.verdicts().iter().collect();
        for verdict in next.verdicts().iter().filter(|verdict| !known.contains(verdict)) {
            tracing::warn!(
                balancer = %verdict.rule, host = verdict.host, path = verdict.path,
                served_by = %verdict.holder,
                "conflict: this host and path are served by another"
            );
        }
        self.swap(previous, next)
    }

    /// Puts in use what is behind these ports of Services now, where nothing else has changed since the
    /// last [`Self::publish`], which there was.
    pub fn follow(&mut self, changed: &[ServicePort], endpoints: &Endpoints) -> Arc<Table> {
        let previous = self.table.load_full();
        if !self.users.fit(&previous) {
            self.users = Users::of(&previous);
        }
        let next = previous.with(changed, endpoints, &self.users, Instant::now());
        self.swap(previous, next)
    }

    fn swap(&mut self, previous: Arc<Table>, next: Table) -> Arc<Table> {
        tracing::debug!(balancers = next.routes.len(), "table in use");
        let next = Arc::new(next);
        self.table.store(Arc::clone(&next));
        self.metrics.table_swapped();
        self.replaced.push(previous);
        self.replaced.retain(|table| Arc::strong_count(table) > 1);
        next
    }
}
