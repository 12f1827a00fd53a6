//! The examples for clusters, applied as they are; what their pods would do is done by the tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::life::until;
use crate::pods::{Namespace, Pod};
use crate::support::{Act, Member, Received, ok, response};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    each_example_has_a_test,
    site_serves_static_files_and_keeps_sessions_at_their_application_server,
    tomcat_keeps_sessions_by_the_names_of_pods_that_change_their_address,
    canary_gets_exactly_its_share,
    drain_keeps_sessions_and_begins_none,
];

/// Where the pods of the examples serve.
const PORT: u16 = 8080;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).unwrap()
}

/// Runs the pods of a workload, each of which answers with its name.
fn run<'c>(namespace: &Namespace<'c>, app: &str, count: usize) -> Vec<(Pod<'c>, Member)> {
    let named = |pod: &Pod| {
        let name = pod.name.clone();
        pod.serve(PORT, move |_| ok(&name))
    };
    let pods = namespace.run_pods(app, count).into_iter();
    pods.map(|pod| (named(&pod), pod)).map(|(member, pod)| (pod, member)).collect()
}

/// Waits until a Balancer is served and all its members were found.
fn until_resolved(namespace: &Namespace, name: &str) {
    until(namespace, name, "Programmed", "True", "Programmed");
    until(namespace, name, "ResolvedRefs", "True", "ResolvedRefs");
}

fn each_example_has_a_test(_: &ControlPlane) {
    let entries = std::fs::read_dir(directory()).unwrap();
    let files: BTreeSet<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let tested: BTreeSet<_> = TESTS
        .iter()
        .filter_map(|(name, _)| name.rsplit("::").next()?.split('_').next())
        .filter(|word| *word != "each")
        .map(|word| format!("{word}.yaml"))
        .collect();
    assert_eq!(files, tested);
}

fn site_serves_static_files_and_keeps_sessions_at_their_application_server(
    control_plane: &ControlPlane,
) {
    let namespace = control_plane.namespace("site");
    namespace.apply(&example("site.yaml"));
    let gibbon = Gibbon::of(&namespace, &[]);
    let files = namespace.run_pods("static", 2);
    let _files: Vec<_> =
        files.iter().map(|pod| pod.serve(PORT, |asked: &Received| ok(asked.target()))).collect();
    // Each names itself in the session's cookie, as the article's application does.
    let application = |app: &str| {
        let pod = namespace.run_pods(app, 1).remove(0);
        let (cookie, body) = (format!("sessionid=abc!{app}"), app.to_owned());
        let member = pod.serve(PORT, move |asked: &Received| {
            let cookie = [("Set-Cookie", cookie.as_str())];
            let is_new = asked.header("cookie").is_none();
            Act::Write(response("200 OK", if is_new { &cookie } else { &[] }, &body))
        });
        (pod, member)
    };
    let _applications = [application("app1"), application("app2")];
    until_resolved(&namespace, "static");
    until_resolved(&namespace, "app");

    assert_eq!(gibbon.get("www.site.com", "/static/a.png?b").text(), "/media/a.png?b");
    let mut used = BTreeSet::new();
    for _ in 0..20 {
        let first = gibbon.get("www.site.com", "/");
        let cookie = first.header("set-cookie").unwrap().to_owned();
        for _ in 0..3 {
            let again = gibbon.ask("www.site.com", "/cart", &format!("Cookie: {cookie}\r\n"));
            assert_eq!(again.text(), first.text());
        }
        used.insert(first.text());
    }
    assert_eq!(used, ["app1".to_owned(), "app2".to_owned()].into());
    for _ in 0..5 {
        assert_eq!(gibbon.get("www.site.com", "/;sessionid=abc!app2").text(), "app2");
    }
}

fn tomcat_keeps_sessions_by_the_names_of_pods_that_change_their_address(
    control_plane: &ControlPlane,
) {
    let namespace = control_plane.namespace("tomcat");
    namespace.apply(&example("tomcat.yaml"));
    let gibbon = Gibbon::of(&namespace, &[]);
    let mut pods = run(&namespace, "tomcat", 2);
    pods.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let names: Vec<_> = pods.iter().map(|(pod, _)| pod.name.clone()).collect();
    assert_eq!(names, ["tomcat-0", "tomcat-1"]);
    until_resolved(&namespace, "tomcat");
    eventually("both are served", || gibbon.members("tomcat", "usable") == 2);
    let asked = |session: &str| {
        gibbon.ask("shop.site.com", "/", &format!("Cookie: JSESSIONID={session}\r\n")).text()
    };
    let keeps = || {
        for name in &names {
            assert!((0..5).all(|_| asked(&format!("abc.{name}")) == *name), "{name}");
            let url = format!("/cart;jsessionid=abc.{name}");
            assert_eq!(gibbon.get("shop.site.com", &url).text(), *name);
        }
    };
    keeps();

    let (old, member) = pods.remove(0);
    old.remove();
    drop(member);
    eventually("it is gone", || gibbon.members("tomcat", "usable") == 1);
    assert_eq!(asked("abc.tomcat-0"), "tomcat-1", "the session is sent to another meanwhile");
    let (new, member) = run(&namespace, "tomcat", 1).remove(0);
    assert_eq!(new.name, "tomcat-0");
    assert_ne!(new.address, old.address);
    eventually("it is back", || gibbon.members("tomcat", "usable") == 2);
    keeps();
    assert!(member.count() >= 6);
}

fn canary_gets_exactly_its_share(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("canary");
    namespace.apply(&example("canary.yaml"));
    let gibbon = Gibbon::of(&namespace, &[]);
    let _stable = run(&namespace, "stable", 3);
    let canary = run(&namespace, "canary", 1);
    until_resolved(&namespace, "shop");
    eventually("all are served", || gibbon.members("shop", "usable") == 4);
    let count = || {
        canary[0].1.forget();
        for _ in 0..400 {
            assert_eq!(gibbon.get("shop.site.com", "/").status, 200);
        }
        canary[0].1.count()
    };
    // Shares are dealt out evenly, not by chance.
    let got = count();
    assert!((18..=22).contains(&got), "{got} of 400");
    namespace.apply(&example("canary.yaml").replace("share: 5}", "share: 0}"));
    let path = namespace.path("gibbon.dev/v1alpha1/balancers/shop");
    eventually("the change is in use", || {
        control_plane.get(&path)["status"]["observedGeneration"] == 2
    });
    assert_eq!(count(), 0);
}

fn drain_keeps_sessions_and_begins_none(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("drain");
    let text = example("drain.yaml");
    namespace.apply(&text.replace(", state: Draining", ""));
    let gibbon = Gibbon::of(&namespace, &[]);
    let blue = run(&namespace, "blue", 1);
    let green = run(&namespace, "green", 1);
    let (blue, green) = (&blue[0].0.name, &green[0].0.name);
    until_resolved(&namespace, "shop");
    eventually("both are served", || gibbon.members("shop", "usable") == 2);
    let mut cookie = None;
    eventually("a session begins on blue", || {
        let seen = gibbon.get("shop.site.com", "/");
        let set = seen.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        cookie = (seen.text() == *blue).then_some(set);
        cookie.is_some()
    });
    let cookie = format!("Cookie: {}\r\n", cookie.unwrap());
    let session = || gibbon.ask("shop.site.com", "/", &cookie).text();
    assert_eq!(session(), *blue);

    // As the example's comment says; then the file as it is.
    let state = |state: &str| {
        let patch =
            format!(r#"[{{"op": "add", "path": "/spec/members/0/state", "value": "{state}"}}]"#);
        let target = ["-n", &namespace.name, "patch", "balancer", "shop", "--type", "json"];
        let output = control_plane.kubectl(&[&target[..], &["--patch", &patch]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let drained = || {
        eventually("blue drains", || gibbon.members("shop", "draining") == 1);
        for _ in 0..20 {
            assert_eq!(session(), *blue);
            assert_eq!(gibbon.get("shop.site.com", "/").text(), *green);
        }
    };
    state("Draining");
    drained();
    state("Active");
    eventually("blue is taken in again", || gibbon.members("shop", "usable") == 2);
    namespace.apply(&text);
    drained();
    state("Disabled");
    eventually("blue is out", || gibbon.members("shop", "disabled") == 1);
    assert_eq!(session(), *green);
}
