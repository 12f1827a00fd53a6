//! `gibbon import` as people run it: exit statuses, files, and the comparison of two fronts.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Gibbon, Member, balancer, data, member, ok};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("gibbon-import-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn gibbon(args: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gibbon"));
    command.args(args).arg(file).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_written_is_read_back_by_check() {
    let scratch = Scratch::new("check");
    let output = gibbon(&["import", "apache", "--strict"], &data("../examples/apache/httpd.conf"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let yaml = scratch.file("balancers.yaml", &text(&output.stdout));
    let check = gibbon(&["check"], &yaml);
    assert!(check.status.success(), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains("Balancers without a fault: 2"));
}

#[test]
fn includes_variables_and_conditions_are_followed() {
    let scratch = Scratch::new("include");
    let main = scratch.file(
        "httpd.conf",
        "Define APP app1.site.com\nIncludeOptional nothing/*.conf\n\
         <IfDefine TEST>\nProxyPass /test/ http://test.site.com/\n</IfDefine>\n\
         Include conf.d/*.conf\n\
         <IfDefine !TEST>\nInclude missing.conf\n</IfDefine>\n",
    );
    scratch.file("conf.d/b.conf", "proxypass / \\\n  \"http://${APP}:8080/\"\n");
    scratch.file("conf.d/a.conf", "ServerName www.site.com\n");
    let output = gibbon(&["import", "apache", "-D", "TEST"], &main);
    let yaml = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        yaml.contains("url: http://app1.site.com:8080/") && yaml.contains("path: /test/"),
        "{yaml}"
    );
    let output = gibbon(&["import", "apache"], &main);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("httpd.conf:8: there is no such file: Include missing.conf"), "{error}");
}

#[test]
fn what_was_dropped_is_told_and_strictly_an_error() {
    let scratch = Scratch::new("strict");
    let conf = "ProxyPass / http://app1.site.com/ ping=1\nCacheEnable disk /\n";
    let conf = scratch.file("httpd.conf", conf);
    let report = scratch.0.join("report.json");
    let report_flag = format!("--report={}", report.display());
    let args = ["import", "apache", "--strict", "--format", "json", &report_flag];
    let output = gibbon(&args, &conf);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), String::new()));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["counts"]["directives"]["dropped"], 1);
    assert_eq!(report["counts"]["parameters"]["dropped"], 1);
    assert_eq!(report["directives"][1]["line"], 2);
    assert_eq!(gibbon(&["import", "apache"], &conf).status.code(), Some(0));
}

#[test]
fn members_in_the_cluster_become_services_if_asked() {
    let scratch = Scratch::new("services");
    let conf = scratch.file(
        "httpd.conf",
        "ServerName www.site.com\nProxyPass /s https://sec.shop.svc/\n\
         ProxyPass / http://app.shop.svc.cluster.local:8080/x/\n",
    );
    let output = gibbon(&["import", "apache", "--services", "shop"], &conf);
    let yaml = text(&output.stdout);
    for part in [
        "namespace: shop",
        "name: app",
        "port: 8080",
        "path: /x/",
        "preserveHost: false",
        "protocol: HTTPS",
        "port: 443",
    ] {
        assert!(yaml.contains(part), "{part}: {yaml}");
    }
}

#[test]
fn two_fronts_are_compared_by_the_same_safe_requests() {
    let scratch = Scratch::new("replay");
    let (old, new) = (Member::new(ok("page")), Member::new(ok("page")));
    let other = Member::new(ok("another"));
    let split = |member_at_b: &Member, app: &Member| {
        balancer(&[member(app.address, "")], "")
            + "---\n"
            + &support::named("b", "/b", &[member(member_at_b.address, "")], "")
    };
    let fronts = [Gibbon::start(&split(&old, &old)), Gibbon::start(&split(&other, &new))];
    let line = |request: &str| {
        format!("www.site.com:80 1.2.3.4 - - [x] \"{request} HTTP/1.1\" 200 4 \"-\" \"-\"\n")
    };
    let log = line("GET /a") + &line("GET /b") + &line("POST /a") + &line("GET /a");
    let log = scratch.file("access.log", &log);
    let urls = fronts.each_ref().map(|front| format!("http://{}", front.address));
    let args = ["import", "apache", "--replay", &urls[0], &urls[1], "--requests"];
    let output = gibbon(&args, &log);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let expected = "requests: 2; equal: 1; different: 1; left out: 1 not safe, 0 not understood\n\
                    1 × content length: 4 → 7\n    GET www.site.com/b\n";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!((old.count(), new.count(), other.count()), (2, 1, 1));
    let args = ["import", "apache", "--replay", &urls[0], &urls[0], "--requests"];
    assert_eq!(gibbon(&args, &log).status.code(), Some(0));
    let deeper = format!("{}/app", urls[0]);
    let output = gibbon(&["import", "apache", "--replay", &deeper, &urls[0], "--requests"], &log);
    assert!(text(&output.stderr).contains("without a path"), "{}", text(&output.stderr));
}
