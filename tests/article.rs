//! The acceptance run for the site that started the project, A1 to A9.

mod support;

use std::time::Duration;

use support::{Act, Gibbon, Member, Options, Received, eventually, ok, response};

const HOST: &str = "www.site.com";

/// The article's site: two application servers and two static servers behind a Gibbon that reads
/// `examples/site/balancers.yaml`.
struct Site {
    gibbon: Gibbon,
    apps: [Member; 2],
    statics: [Member; 2],
}

impl Site {
    fn new() -> Self {
        Self::with(
            &std::fs::read_to_string(support::data("../examples/site/balancers.yaml")).unwrap(),
        )
    }

    fn with(yaml: &str) -> Self {
        let apps = ["app1", "app2"].map(|name| Member::new(ok(name)));
        let statics = ["static1", "static2"].map(|name| Member::new(ok(name)));
        let mut options = Options::default();
        for (name, member) in ["app1", "app2"].into_iter().zip(&apps) {
            options = options.name(&format!("{name}.site.com"), 80, member.address);
        }
        for (name, member) in ["static1", "static2"].into_iter().zip(&statics) {
            options = options.name(&format!("{name}.site.com"), 80, member.address);
        }
        Self { gibbon: Gibbon::with(yaml, options), apps, statics }
    }

    fn session(&self, route: &str) -> support::Seen {
        let cookie = format!("sessionid=x!{route}");
        self.gibbon.ask("GET", HOST, "/", &[("Cookie", &cookie)])
    }

    fn apps(&self) -> [usize; 2] {
        [self.apps[0].count(), self.apps[1].count()]
    }
}

fn after(millis: u64, act: Act) -> Act {
    Act::After(Duration::from_millis(millis), Box::new(act))
}

#[test]
fn a1_free_requests_reach_both_application_servers() {
    let site = Site::new();
    for _ in 0..40 {
        assert_eq!(site.gibbon.get(HOST, "/").status, 200);
    }
    let [one, two] = site.apps();
    assert!(one > 0 && two > 0 && one + two == 40, "{one} {two}");
}

#[test]
fn a2_the_quicker_server_gets_more_and_the_slower_not_nothing() {
    let site = Site::new();
    for (slow, quick) in [(0, 1), (1, 0)] {
        site.apps[slow].act(after(200, ok("slow")));
        site.apps[quick].act(after(10, ok("quick")));
        // The estimates of the round before fade within seconds.
        eventually(|| {
            site.apps.iter().for_each(Member::forget);
            for _ in 0..40 {
                site.gibbon.get(HOST, "/");
            }
            let served = site.apps();
            (served[quick] > served[slow] * 3 / 2 && served[quick] > 20).then_some(())
        });
    }
    eventually(|| {
        site.gibbon.get(HOST, "/");
        (site.apps()[1] > 0).then_some(())
    });
}

#[test]
fn a3_a_session_stays_with_the_server_that_it_names() {
    let site = Site::new();
    for (route, server) in [("app2", 1), ("app1", 0)] {
        site.apps.iter().for_each(Member::forget);
        for _ in 0..20 {
            assert_eq!(site.session(route).text(), route);
        }
        assert_eq!(site.apps()[server], 20);
    }
}

#[test]
fn a_session_in_the_url_comes_before_the_cookie() {
    let site = Site::new();
    for path in ["/?sessionid=D!app2", "/a;sessionid=D!app2/b"] {
        let seen = site.gibbon.ask("GET", HOST, path, &[("Cookie", "sessionid=D!app1")]);
        assert_eq!(seen.text(), "app2");
    }
}

#[test]
fn a4_a_stopped_server_is_replaced_within_the_request_and_comes_back_by_itself() {
    let yaml = std::fs::read_to_string(support::data("../examples/site/balancers.yaml")).unwrap();
    let mut site =
        Site::with(&yaml.replace("  sticky:", "  failover: {excludeFor: 300ms}\n  sticky:"));
    assert_eq!(site.session("app1").text(), "app1");
    site.apps[0].stop();
    for _ in 0..10 {
        assert_eq!(site.gibbon.get(HOST, "/").text(), "app2");
        assert_eq!(site.session("app1").text(), "app2");
    }
    site.apps[0].start();
    eventually(|| (site.session("app1").text() == "app1").then_some(()));
    for _ in 0..10 {
        assert_eq!(site.session("app1").text(), "app1");
    }
}

#[test]
fn a5_static_files_come_from_both_static_servers_below_media() {
    let site = Site::new();
    for _ in 0..20 {
        assert_eq!(site.gibbon.get(HOST, "/static/a.png?v=1").status, 200);
    }
    for member in &site.statics {
        let received = member.received();
        assert!(!received.is_empty());
        assert!(received.iter().all(|r| r.line == "GET /media/a.png?v=1 HTTP/1.1"), "{received:?}");
    }
    let hosts: Vec<_> =
        site.statics.iter().map(|m| m.received()[0].header("host").unwrap().to_owned()).collect();
    assert_eq!(hosts, ["static1.site.com", "static2.site.com"]);
    assert_eq!(site.apps(), [0, 0]);
}

#[test]
fn a6_redirects_of_all_four_come_out_as_urls_of_the_site() {
    let site = Site::new();
    let redirect = |to: &str| Act::Write(response("302 Found", &[("Location", to)], ""));
    for member in ["app1", "app2"] {
        for app in &site.apps {
            app.act(redirect(&format!("http://{member}.site.com/login?a=b")));
        }
        let seen = site.gibbon.get(HOST, "/");
        assert_eq!(seen.header("location"), Some("http://www.site.com/login?a=b"));
    }
    for member in ["static1", "static2"] {
        for server in &site.statics {
            server.act(redirect(&format!("http://{member}.site.com/media/css/a.css")));
        }
        let seen = site.gibbon.get(HOST, "/static/x");
        assert_eq!(seen.header("location"), Some("http://www.site.com/static/css/a.css"));
    }
}

#[test]
fn what_one_part_of_the_site_says_of_another_is_reversed_too() {
    let site = Site::new();
    let redirect = |to: &str| Act::Write(response("302 Found", &[("Location", to)], ""));
    for member in &site.apps {
        member.act(redirect("http://static2.site.com/media/css/a.css"));
    }
    let seen = site.gibbon.get(HOST, "/x");
    assert_eq!(seen.header("location"), Some("http://www.site.com/static/css/a.css"));
    for member in &site.statics {
        member.act(redirect("http://app1.site.com/login"));
    }
    let seen = site.gibbon.get(HOST, "/static/a.png");
    assert_eq!(seen.header("location"), Some("http://www.site.com/login"));
}

#[test]
fn a7_cookies_for_a_servers_own_domain_are_for_the_site() {
    let site = Site::new();
    for member in ["app1", "app2"] {
        let cookie = format!("sessionid=x!{member}; Domain={member}.site.com; Path=/; HttpOnly");
        for app in &site.apps {
            app.act(Act::Write(response("200 OK", &[("Set-Cookie", &cookie)], "")));
        }
        let seen = site.gibbon.get(HOST, "/");
        let expected = format!("sessionid=x!{member}; Domain=www.site.com; Path=/; HttpOnly");
        assert_eq!(seen.header("set-cookie"), Some(expected.as_str()));
    }
}

#[test]
fn a8_an_unknown_host_is_404_and_reaches_nobody() {
    let site = Site::new();
    let seen = site.gibbon.get("other.site.com", "/");
    assert_eq!(seen.status, 404);
    assert_eq!(seen.text(), "Not Found: no site has this name\n");
    assert_eq!(site.apps(), [0, 0]);
}

#[test]
fn a9_a_server_that_fails_at_once_does_not_attract_traffic() {
    let site = Site::new();
    site.apps[0].act(Act::Write(response("500 Internal Server Error", &[], "")));
    site.apps[1].act(after(5, ok("app2")));
    for _ in 0..50 {
        site.gibbon.get(HOST, "/");
    }
    site.apps.iter().for_each(Member::forget);
    let failed = (0..200).filter(|_| site.gibbon.get(HOST, "/").status == 500).count();
    assert!(failed <= 4, "{failed} of 200 failed");
}

#[test]
fn members_are_told_who_asks_and_what_for() {
    let site = Site::new();
    site.gibbon.ask("GET", HOST, "/a%2Fb|c?x=%20", &[("X-Forwarded-For", "9.9.9.9")]);
    let received = site.apps.iter().flat_map(Member::received).collect::<Vec<Received>>();
    let [request] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(request.target(), "/a%2Fb|c?x=%20");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-host"), Some("www.site.com"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert!(request.header("connection").is_none());
}
