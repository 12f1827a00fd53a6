//! Gibbon: an ingress controller that sends each request to the member that answers fastest, and
//! each session to the member that began it.
//!
//! **[`source`] finds out what is wanted, [`table`] is what was decided, [`proxy`] does it.**
//!
//! * A *Balancer* is what a user writes ([`api`]).
//! * A *rule* is one thing that a source asks for: parsed, compiled, checked ([`table::Rule`]).
//! * A *route* is a rule with its live members ([`table::Route`]).
//! * A *member* is one address, with weight, route name and load ([`table::Member`]).
//! * The *table* has all routes in matching order; it is immutable and swapped whole
//!   ([`table::Table`]). What is learned of a backend ([`table::load::Load`]) stands behind it and
//!   survives every swap.
//! * An *explanation* tells why a request went where it went ([`explain`]).
//!
//! `source` and `proxy` never import each other: [`app`] hands both the same
//! `Arc<ArcSwap<Table>>`. A request takes the table once and keeps its route; a change builds a
//! new table beside the old one. `table` is pure: time and randomness are arguments.

pub mod admin;
pub mod api;
pub mod app;
pub mod args;
pub mod check;
pub mod demo;
pub mod dry_run;
pub mod explain;
pub mod health;
pub mod healthz;
pub mod import;
pub mod metrics;
pub mod proxy;
pub mod source;
pub mod table;
