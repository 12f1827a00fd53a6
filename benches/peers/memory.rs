//! Memory at rest, with idle clients, and with bodies that are under way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::load::{Load, Shape, Target};
use crate::measure::{CONNECTIONS, Contender, Cores, MEMBERS, Tested};
use crate::usage::{Usage, mib};
use crate::{LARGE, POST, USUAL};

/// Idle connections whose memory is told.
pub const IDLE: usize = 5000;
/// How long they have been idle by then.
pub const IDLE_FOR: Duration = Duration::from_secs(5);
/// So many of them at a time are new.
const FEW: usize = 50;
/// Bodies that are under way at once.
pub const BODIES: usize = 64;
/// What their clients read in this time, and the kernel's buffer for what they have not.
pub const SLOW: (usize, Duration) = (8 * 1024, Duration::from_millis(20));
const RECEIVE: usize = 64 * 1024;

/// Of one proxy; nothing where it does not do that.
pub struct Memory {
    /// MiB before any request.
    pub rest: f64,
    /// KiB more for each idle connection that has had a request without a body, and with one.
    pub idle: [Option<f64>; 2],
    /// MiB more, at most, with so many bodies under way.
    pub bodies: Option<f64>,
}

/// Starts it for each part: what one leaves is not the other's.
pub fn measure(contender: Contender<'_>) -> Result<Memory> {
    let name = contender.peer.label();
    let told = |error: &anyhow::Error| eprintln!("memory, {name}: {error:#}");
    let (load, tested) = start(contender, &USUAL)?;
    let rest = mib(memory(&tested)?);
    drop((load, tested));
    let idle = [USUAL, POST].map(|shape| idle(contender, &shape).inspect_err(told).ok());
    let (mut load, tested) = start(contender, &LARGE)?;
    let bodies = bodies(&mut load, &tested).inspect_err(told).ok();
    Ok(Memory { rest, idle, bodies })
}

fn start(contender: Contender<'_>, shape: &Shape) -> Result<(Load, Tested)> {
    let (load, members) = Load::new(shape, MEMBERS)?;
    let tested = Tested::start(contender, &members, Cores::Apart, None);
    Ok((load, tested.with_context(|| contender.peer.label())?))
}

fn memory(tested: &Tested) -> Result<u64> {
    Ok(Usage::of(tested.running.process())?.memory)
}

fn idle(contender: Contender<'_>, shape: &Shape) -> Result<f64> {
    let (mut load, tested) = start(contender, shape)?;
    // What the first requests need, such as connections to members, is there before.
    let first = load.connect(&tested.target, CONNECTIONS)?;
    load.run(&first, Duration::ZERO)?;
    let before = memory(&tested)?;
    // Few at a time: Apache's listener is full of those that have not asked.
    for _ in 0..IDLE / FEW {
        let clients = load.connect(&tested.target, FEW)?;
        load.run(&clients, Duration::ZERO)?;
    }
    std::thread::sleep(IDLE_FOR);
    let after = memory(&tested)?;
    // It is heard by now if some were closed.
    load.run(&first, Duration::ZERO)?;
    ensure!(load.closed == 0, "{} of {IDLE} connections were closed", load.closed);
    Ok(after.saturating_sub(before) as f64 / 1024.0 / IDLE as f64)
}

fn bodies(load: &mut Load, tested: &Tested) -> Result<f64> {
    let target = Target { receive: Some(RECEIVE), ..tested.target.clone() };
    let clients = load.connect(&target, BODIES)?;
    let before = memory(tested)?;
    let mut most = before;
    load.trickle(&clients, SLOW, || {
        most = most.max(memory(tested)?);
        Ok(())
    })?;
    Ok(mib(most - before))
}
