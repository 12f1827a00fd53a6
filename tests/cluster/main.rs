//! Gibbon and a real control plane: etcd, kube-apiserver and kube-controller-manager, in namespaces of
//! their own. One control plane serves all tests, so each has a Kubernetes namespace and hosts of its
//! own. A module with tests lists them in `TESTS`, which `SHARING` or `ALONE` names.

mod api;
mod certificates;
mod chart;
mod control_plane;
mod endpoints;
mod examples;
mod gibbon;
#[allow(dead_code)]
mod isolation;
mod life;
mod outage;
mod pods;
mod programs;
mod resource;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod traffic;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use control_plane::ControlPlane;
use isolation::Inside;
use libtest_mimic::{Arguments, Trial};

/// A test's name and what it does.
type Test = (&'static str, fn(&ControlPlane));

/// The tests of a module: `pub const TESTS: &[Test] = tests![one, another];`
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+]
    };
}
use tests;

/// Those that share the control plane.
const SHARING: &[&[Test]] = &[
    resource::TESTS,
    endpoints::TESTS,
    life::TESTS,
    examples::TESTS,
    certificates::TESTS,
    chart::TESTS,
    programs::TESTS,
    tenants::TESTS,
    traffic::TESTS,
];

/// Those that stop the API server, and so run while no other does.
const ALONE: &[&[Test]] = &[outage::TESTS, traffic::ALONE];

/// Tests wait more than they compute.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let wanted = |trial: &Trial| !arguments.is_filtered_out(trial) && !arguments.is_ignored(trial);
    if arguments.list || !trials(None).iter().any(wanted) {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let Some(inside) = Inside::from_environment() else {
        return isolation::enter();
    };
    let started = inside.prepare().and_then(|()| ControlPlane::start(&inside));
    let control_plane: &'static ControlPlane = match started {
        Ok(control_plane) => Box::leak(Box::new(control_plane)),
        Err(error) => {
            eprintln!("The control plane does not start: {error:#}");
            inside.keep_logs();
            return ExitCode::FAILURE;
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials(Some(control_plane)));
    if conclusion.has_failed() {
        inside.keep_logs();
    }
    conclusion.exit_code()
}

/// All tests; without a control plane only to be counted.
fn trials(control_plane: Option<&'static ControlPlane>) -> Vec<Trial> {
    static TURN: RwLock<()> = RwLock::new(());
    let name = |path: &str| path.trim_start_matches("cluster::").to_owned();
    let run = move |test: fn(&ControlPlane)| {
        let control_plane = control_plane.expect("a control plane");
        // One that failed may have left it stopped.
        control_plane.start_api();
        test(control_plane);
        Ok(())
    };
    let sharing = SHARING.concat().into_iter().map(|(path, test)| {
        Trial::test(name(path), move || {
            let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
            run(test)
        })
    });
    let alone = ALONE.concat().into_iter().map(|(path, test)| {
        Trial::test(name(path), move || {
            let _turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
            run(test)
        })
    });
    sharing.chain(alone).collect()
}
