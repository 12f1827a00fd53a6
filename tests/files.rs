//! A directory as the source of Balancers: changes, faults, conflicts, names.

mod support;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use gibbon::source::names::Answer;
use support::{Gibbon, Member, Options, balancer, eventually, member, named, ok};

const HOST: &str = "www.site.com";

fn becomes(gibbon: &Gibbon, path: &str, text: &str) {
    eventually(|| (gibbon.get(HOST, path).text() == text).then_some(()));
}

#[test]
fn changes_are_followed_without_dropping_a_connection() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    let mut client = gibbon.client();
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
        client.read().expect("the connection lives on").text()
    };
    assert_eq!(ask(), "one");
    gibbon.write("balancers.yaml", &balancer(&[member(two.address, "")], ""));
    eventually(|| (ask() == "two").then_some(()));
}

#[test]
fn new_files_are_served_and_removed_ones_are_not() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    gibbon.write("more.yml", &named("more", "/more/", &[member(two.address, "")], ""));
    becomes(&gibbon, "/more/", "two");
    std::fs::remove_file(gibbon.directory.join("more.yml")).unwrap();
    becomes(&gibbon, "/more/", "one");
    gibbon.write(".hidden.yaml", &named("more", "/more/", &[member(two.address, "")], ""));
    gibbon.write("notes.txt", "no: yaml");
    assert_eq!(gibbon.get(HOST, "/more/").text(), "one");
}

#[test]
fn an_invalid_file_keeps_the_last_good_version_and_is_named_everywhere() {
    let one = Member::new(ok("one"));
    let good = balancer(&[member(one.address, "")], "");
    let gibbon = Gibbon::start(&good);
    let metric = "gibbon_source_invalid{source=\"balancers.yaml\"}";
    assert_eq!(gibbon.metric(metric), Some(0.0));
    for (bad, complaint) in [
        (good.replace("path: /", "path: x"), "6: spec.path: "),
        (format!("{good}  unknown: 1\n"), "spec.unknown"),
        (format!("{good}  - nonsense\n"), "balancers.yaml"),
    ] {
        gibbon.write("balancers.yaml", &bad);
        eventually(|| gibbon.page("/readyz?verbose").text().contains(complaint).then_some(()));
        assert_eq!(gibbon.get(HOST, "/").text(), "one");
        assert_eq!(gibbon.metric(metric), Some(1.0));
        assert_eq!(gibbon.page("/readyz").status, 200);
        gibbon.write("balancers.yaml", &good);
        eventually(|| (gibbon.metric(metric) == Some(0.0)).then_some(()));
    }
}

#[test]
fn a_file_that_is_invalid_at_the_start_does_not_keep_the_rest_from_being_served() {
    let one = Member::new(ok("one"));
    let good = balancer(&[member(one.address, "")], "");
    let bad = named("bad", "x", &[member(one.address, "")], "");
    let gibbon = Gibbon::start(&format!("{bad}---\n{good}"));
    assert_eq!(gibbon.get(HOST, "/").text(), "one");
    assert!(gibbon.page("/readyz?verbose").text().contains("spec.path"));
}

#[test]
fn services_are_refused_with_a_reason() {
    let gibbon =
        Gibbon::start(&named("app", "/", &["service: {name: app, port: http}".into()], ""));
    let text = gibbon.page("/readyz?verbose").text();
    assert!(text.contains("spec.members[0].service: ") && text.contains("cluster"), "{text}");
    assert_eq!(gibbon.get(HOST, "/").status, 404);
}

#[test]
fn of_two_balancers_for_the_same_host_and_path_the_first_by_name_serves() {
    let (a, b) = (Member::new(ok("a")), Member::new(ok("b")));
    let gibbon = Gibbon::start(&named("b", "/", &[member(b.address, "")], ""));
    becomes(&gibbon, "/", "b");
    gibbon.write("zzz.yaml", &named("a", "/", &[member(a.address, "")], ""));
    becomes(&gibbon, "/", "a");
    let conflict = &gibbon.table()["conflicts"][0];
    assert_eq!(
        (&conflict["balancer"], &conflict["servedBy"]),
        (&"site/b".into(), &"site/a".into())
    );
    std::fs::remove_file(gibbon.directory.join("zzz.yaml")).unwrap();
    becomes(&gibbon, "/", "b");
}

#[test]
fn of_two_files_with_the_same_balancer_the_first_by_name_holds_it() {
    let (a, b) = (Member::new(ok("a")), Member::new(ok("b")));
    let gibbon = Gibbon::start(&balancer(&[member(a.address, "")], ""));
    gibbon.write("later.yaml", &balancer(&[member(b.address, "")], ""));
    eventually(|| {
        let text = gibbon.page("/readyz?verbose").text();
        (text.contains("later.yaml: ") && text.contains("site/app")).then_some(())
    });
    assert_eq!(gibbon.get(HOST, "/").text(), "a");
    std::fs::remove_file(gibbon.directory.join("balancers.yaml")).unwrap();
    becomes(&gibbon, "/", "b");
}

#[test]
fn a_mounted_config_map_is_followed() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    let versions = gibbon.directory.join("..versions");
    let publish = |version: &str, member_line: String| {
        let folder = versions.join(version);
        std::fs::create_dir_all(&folder).unwrap();
        let yaml = named("mounted", "/mounted/", &[member_line], "");
        std::fs::write(folder.join("mounted.yaml"), yaml).unwrap();
        symlink(&folder, gibbon.directory.join("..data_tmp")).unwrap();
        std::fs::rename(gibbon.directory.join("..data_tmp"), gibbon.directory.join("..data"))
            .unwrap();
    };
    publish("1", member(one.address, ""));
    symlink("..data/mounted.yaml", gibbon.directory.join("mounted.yaml")).unwrap();
    becomes(&gibbon, "/mounted/", "one");
    publish("2", member(two.address, ""));
    becomes(&gibbon, "/mounted/", "two");
}

#[test]
fn a_directory_that_comes_back_is_followed_again_and_links_may_dangle() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let yaml = |member_of: &Member| balancer(&[member(member_of.address, "")], "");
    let gibbon = Gibbon::start(&yaml(&one));
    let away = gibbon.directory.with_extension("away");
    std::fs::remove_dir_all(&gibbon.directory).unwrap();
    eventually(|| gibbon.page("/readyz?verbose").text().contains("cannot be read").then_some(()));
    assert_eq!(gibbon.get(HOST, "/").text(), "one");
    std::fs::create_dir(&gibbon.directory).unwrap();
    gibbon.write("balancers.yaml", &yaml(&two));
    becomes(&gibbon, "/", "two");
    let file = gibbon.directory.join("balancers.yaml");
    std::fs::rename(&file, &away).unwrap();
    symlink(&away, &file).unwrap();
    std::fs::remove_file(&away).unwrap();
    eventually(|| gibbon.page("/readyz?verbose").text().contains("balancers.yaml: ").then_some(()));
    assert_eq!(gibbon.get(HOST, "/").text(), "two");
}

#[test]
fn an_editors_rename_is_followed_and_a_write_in_two_parts_too() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    gibbon.write("balancers.yaml~", &balancer(&[member(two.address, "")], ""));
    let file = gibbon.directory.join("balancers.yaml");
    std::fs::rename(gibbon.directory.join("balancers.yaml~"), &file).unwrap();
    becomes(&gibbon, "/", "two");
    let yaml = balancer(&[member(one.address, "")], "");
    let (before, after) = yaml.split_at(yaml.len() / 2);
    let mut open = std::fs::File::create(&file).unwrap();
    open.write_all(before.as_bytes()).unwrap();
    open.write_all(after.as_bytes()).unwrap();
    becomes(&gibbon, "/", "one");
}

#[test]
fn a_file_that_is_written_slowly_goes_on_serving_what_it_held() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    let yaml = balancer(&[member(two.address, "")], "");
    let mut open = std::fs::File::create(gibbon.directory.join("balancers.yaml")).unwrap();
    let until = Instant::now() + Duration::from_millis(800);
    while Instant::now() < until {
        assert_eq!(gibbon.get(HOST, "/").text(), "one");
    }
    open.write_all(yaml.as_bytes()).unwrap();
    becomes(&gibbon, "/", "two");
    gibbon.write("balancers.yaml", "# nothing any more\n");
    eventually(|| (gibbon.get(HOST, "/").status == 404).then_some(()));
}

#[test]
fn a_change_to_another_name_or_port_loses_no_request() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let options = Options::default().name("app.internal", 1, one.address);
    let options = options.name("app.internal", 2, two.address);
    let yaml = |port: u16| balancer(&[format!("url: 'http://app.internal:{port}/'")], "");
    let gibbon = Gibbon::with(&yaml(1), options);
    for (port, text) in [(2, "two"), (1, "one"), (2, "two")] {
        gibbon.write("balancers.yaml", &yaml(port));
        eventually(|| {
            let seen = gibbon.get(HOST, "/");
            assert_eq!(seen.status, 200);
            (seen.text() == text).then_some(())
        });
    }
}

#[test]
fn members_of_one_address_have_series_of_their_own() {
    let app = Member::new(ok("x"));
    let member = |path: &str| format!("url: 'http://{}/{path}/'", app.address);
    let gibbon = Gibbon::start(&balancer(&[member("one"), member("two")], ""));
    let text = gibbon.page("/metrics").text();
    let series: Vec<_> =
        text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).collect();
    let unique: std::collections::BTreeSet<_> = series.iter().map(|(name, _)| name).collect();
    assert_eq!(unique.len(), series.len(), "{text}");
}

#[test]
fn a_name_is_followed_to_its_new_addresses() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let options = Options::default().name("app.internal", 8080, one.address);
    let yaml = balancer(&["url: 'http://app.internal:8080/'".to_owned()], "");
    let gibbon = Gibbon::with(&yaml, options);
    assert_eq!(gibbon.get(HOST, "/").text(), "one");
    let second = Duration::from_secs(1);
    gibbon.resolver.fix("app.internal", 8080, Answer::Addresses(vec![two.address], second));
    becomes(&gibbon, "/", "two");
    let both = Answer::Addresses(vec![one.address, two.address], second);
    gibbon.resolver.fix("app.internal", 8080, both);
    eventually(|| (gibbon.table()["balancers"][0]["members"].as_array()?.len() == 2).then_some(()));
    gibbon.resolver.fix("app.internal", 8080, Answer::Trouble("no answer".into()));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(gibbon.get(HOST, "/").status, 200);
    gibbon.resolver.fix("app.internal", 8080, Answer::Unknown);
    eventually(|| (gibbon.get(HOST, "/").status == 503).then_some(()));
}

#[test]
fn what_was_learned_of_a_member_survives_a_change() {
    let one = Member::new(ok("one"));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    for _ in 0..5 {
        gibbon.get(HOST, "/");
    }
    let requests = "gibbon_member_requests_total{";
    assert_eq!(gibbon.metric(requests), Some(5.0));
    gibbon.write("balancers.yaml", &balancer(&[member(one.address, "weight: 5")], ""));
    eventually(|| (gibbon.table()["balancers"][0]["members"][0]["weight"] == 5.0).then_some(()));
    assert_eq!(gibbon.metric(requests), Some(5.0));
}

#[test]
fn the_series_of_a_member_end_with_it() {
    let (one, two) = (Member::new(ok("one")), Member::new(ok("two")));
    let gibbon = Gibbon::start(&balancer(&[member(one.address, "")], ""));
    let mine = one.address.to_string();
    assert!(gibbon.page("/metrics").text().contains(&mine));
    gibbon.write("balancers.yaml", &balancer(&[member(two.address, "")], ""));
    eventually(|| (!gibbon.page("/metrics").text().contains(&mine)).then_some(()));
}
