//! `gibbon import`: other proxies' configurations → Balancers, with an account of every directive.
//!
//! `syntax` reads Apache's language, `read` follows includes and conditions, `site` sorts what is
//! left by virtual host, `members` and `balancers` translate it. Every directive ends in the
//! `report`, which is why each step writes to it.

mod access;
mod balancers;
mod checks;
mod conditions;
mod errors;
pub mod known;
mod members;
mod pattern;
pub mod read;
mod redirect;
pub mod replay;
pub mod report;
pub mod run;
mod secure;
mod site;
mod syntax;
mod upstream;
mod yaml;

use std::collections::BTreeMap;

pub use syntax::{Error, Place};

use read::{File, Find, Reader};
use report::Report;

use crate::api;

/// What the importer is told besides the files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables, as if by `Define`.
    pub defines: BTreeMap<String, String>,
    /// The namespace whose Services members may become.
    pub services: Option<String>,
}

/// Balancers, and what became of each directive.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The Balancers with the directive that each came from.
    pub balancers: Vec<(String, api::Balancer)>,
    /// What became of the directives.
    pub report: Report,
}

impl Outcome {
    /// The Balancers as YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        yaml::write(&self.balancers)
    }
}

/// Translates configurations of Apache or of Helicon Ape, as if they were one file.
///
/// # Errors
/// The first line that is no configuration.
pub fn apache(files: &[File], find: &Find<'_>, options: &Options) -> Result<Outcome, Error> {
    let mut reader = Reader::new(find, options.defines.clone());
    let mut directives = Vec::new();
    for (file, text) in files {
        directives.extend(reader.read(file, text)?);
    }
    let mut report = reader.report();
    let sites = site::sites(&directives, &mut report)?;
    let made = balancers::balancers(&sites, options, &mut report);
    report.close();
    let origin = |made: balancers::Made| (report.origin(made.id), made.balancer);
    let balancers = made.into_iter().map(origin).collect();
    Ok(Outcome { balancers, report })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::report::Verdict;
    use super::*;
    use crate::source::files;

    fn import(text: &str) -> Result<Outcome, Error> {
        let files = [("httpd.conf".to_owned(), text.to_owned())];
        apache(&files, &|_| Ok(Vec::new()), &Options::default())
    }

    fn paths(outcome: &Outcome) -> Vec<(String, &str)> {
        let one = |(_, b): &(String, api::Balancer)| b.spec.hosts.join(" ") + &b.spec.path;
        let balancers = outcome.balancers.iter();
        balancers.map(|b| (one(b), b.1.metadata.name.as_deref().unwrap_or_default())).collect()
    }

    #[test]
    fn what_apache_never_reaches_is_left_out() {
        let outcome = import(
            "ServerName a.org\nProxyPass /a/no !\nProxyPass /a http://h/\nProxyPass /a/b http://h/b\n\
             ProxyPass /x !\n<Location /a/in>\nProxyPass http://h/in\n</Location>",
        );
        let outcome = outcome.unwrap();
        let expected = [
            ("a.org/a/in".to_owned(), "a-org-a-in"),
            ("a.org/a/no".to_owned(), "not-a-no"),
            ("a.org/a".to_owned(), "a-org-a"),
        ];
        assert_eq!(paths(&outcome), expected);
        assert!(!outcome.report.drops(), "{}", outcome.report.text());
    }

    #[test]
    fn what_stands_outside_of_virtual_hosts_is_in_each_of_them() {
        let outcome = import(
            "ProxyPass /all http://all/\n<VirtualHost *>\nServerName a.org\nProxyPass / http://a/\n\
             </VirtualHost>\n<VirtualHost *>\nServerName b.org\nServerAlias *.b.org\n\
             ProxyPass / http://b/\n</VirtualHost>",
        );
        let outcome = outcome.unwrap();
        let paths: Vec<_> = paths(&outcome).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a.org/all", "a.org/", "b.org *.b.org/all", "b.org *.b.org/"]);
    }

    #[test]
    fn the_forms_of_ape_and_of_htaccess_are_read() {
        let files = [(
            ".htaccess".to_owned(),
            "BALANCERMEMBER balancer://b http://h1/ route=a\nbalancermember balancer://B/ http://h2/\n\
             RewriteEngine On\nRewriteRule ^old/(.*)$ http://h3/$1 [P,L]\n\
             ProxySet balancer://b stickysession=s lbmethod=bybusyness\nProxyPass / balancer://b/\n"
                .to_owned(),
        )];
        let outcome = apache(&files, &|_| Ok(Vec::new()), &Options::default()).unwrap();
        assert!(!outcome.report.drops(), "{}", outcome.report.text());
        let spec = |path: &str| {
            let found = outcome.balancers.iter().find(|(_, b)| b.spec.path == path);
            &found.unwrap().1.spec
        };
        assert_eq!(spec("/old/").members[0].url.as_deref(), Some("http://h3/"));
        assert_eq!(spec("/").members.len(), 2);
        assert_eq!(spec("/").balancing.as_ref().unwrap().method, api::Method::LeastRequests);
        assert_eq!(spec("/").sticky.as_ref().unwrap().separator.as_deref(), Some("."));
    }

    #[test]
    fn every_directive_has_a_verdict_and_the_counts_are_theirs() {
        let outcome = import("Foo bar\nProxyPass / fcgi://h/\nProxyPass /a http://h/ max=3 x=y\n");
        let report = outcome.unwrap().report;
        let verdicts: Vec<_> = report.entries().iter().map(|entry| entry.verdict).collect();
        assert_eq!(verdicts, [Verdict::Dropped, Verdict::Dropped, Verdict::Converted]);
        assert_eq!((report.directives().dropped, report.parameters().dropped), (2, 1));
        assert!(report.text().contains("Gibbon speaks HTTP to members, not fcgi"));
    }

    fn yaml(text: &str) -> Vec<serde_json::Value> {
        let outcome = import(text).unwrap();
        outcome.balancers.iter().map(|(_, b)| serde_json::to_value(&b.spec).unwrap()).collect()
    }

    #[test]
    fn redirects_are_where_nothing_is_proxied() {
        let outcome = import(
            "ServerName a.org\nRedirect permanent /old/a http://n/a\nRedirect 410 /gone\n\
             Redirect /late http://n/\nRedirectMatch ^/m/(.*)$ /n/$1\nProxyPass /old !\n\
             ProxyPass /gone/x !\nProxyPass /late http://h/\nProxyPass /gone http://h/\n\
             <Location /in>\nRedirect seeother http://i/\n</Location>",
        );
        let outcome = outcome.unwrap();
        assert_eq!(
            paths(&outcome).into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
            ["a.org/in", "a.org/gone/x", "a.org/late", "a.org/gone", "a.org/old/a", "a.org/m/"]
        );
        let spec = |path: &str| {
            let found = outcome.balancers.iter().find(|(_, b)| b.spec.path == path).unwrap();
            let spec = serde_json::to_value(&found.1.spec).unwrap();
            (spec["redirect"].clone(), spec["refuse"]["status"].clone())
        };
        let to = |to: &str, status, keep| serde_json::json!({"to": to, "status": status, "keepPath": keep});
        assert_eq!(spec("/in").0, to("http://i/", 303, false));
        assert_eq!(spec("/old/a").0, to("http://n/a", 301, true));
        assert_eq!(spec("/gone/x").1, 410);
        assert_eq!(spec("/m/").0, to("/n/", 302, true));
        let report = outcome.report.text();
        assert!(report.contains("never reached: /late comes first"), "{report}");
    }

    #[test]
    fn a_location_below_a_path_is_a_balancer_of_its_own() {
        let specs = yaml(
            "ServerName a.org\nProxyPass /app balancer://b/x stickysession=s\n\
             <Proxy balancer://b>\nBalancerMember http://h1/m route=a\nRequire ip 10\n</Proxy>\n\
             <Location /app/admin>\nRequire ip 10.1\nLimitRequestBody 100\n</Location>\n\
             <Location /app/>\nHeader set X-A b\n</Location>\n\
             <Location /other>\nRequire all denied\n</Location>",
        );
        assert_eq!(specs.len(), 2);
        let (app, admin) = (&specs[0], &specs[1]);
        assert_eq!(
            (&app["path"], &app["members"][0]["url"]),
            (&"/app".into(), &"http://h1/m/x".into())
        );
        assert_eq!(app["access"]["allow"][0], "10.0.0.0/8");
        assert_eq!(app["headers"]["response"]["set"][0]["name"], "X-A");
        assert_eq!(admin["path"], "/app/admin");
        assert_eq!(admin["members"][0]["url"], "http://h1/m/x/admin");
        assert_eq!(admin["access"]["allow"][0], "10.1.0.0/16");
        assert_eq!(admin["limits"]["requestBody"], "100");
        assert_eq!(admin["headers"]["response"]["set"][0]["name"], "X-A");
        assert_eq!(admin["sticky"], app["sticky"]);
    }

    #[test]
    fn a_virtual_host_that_only_sends_to_another_by_tls_is_a_setting_of_that() {
        const TLS: &str = "<VirtualHost *:443>\nServerName a.org\nServerAlias www.a.org\nSSLEngine on\n\
            SSLCertificateFile /etc/a.pem\nSSLCertificateKeyFile /etc/a.key\nProxyPass / http://h/\n</VirtualHost>\n";
        let plain = |line: &str| {
            format!(
                "<VirtualHost *:80>\nServerName a.org\nServerAlias www.a.org old.a.org\n{line}\n\
                 </VirtualHost>\n{TLS}"
            )
        };
        for line in [
            "Redirect permanent / https://a.org/",
            "RewriteEngine On\nRewriteCond %{HTTPS} off\nRewriteRule ^(.*)$ https://%{HTTP_HOST}$1 [R=301,L]",
            "RewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [L,R]",
        ] {
            let specs = yaml(&plain(line));
            assert_eq!(specs.len(), 2, "{line}");
            let served = specs.iter().find(|spec| spec["hosts"][0] == "a.org").unwrap();
            assert_eq!(served["tls"], serde_json::json!({"secretName": "a.org", "redirect": true}));
            let other = specs.iter().find(|spec| spec["hosts"][0] == "old.a.org").unwrap();
            assert!(other["redirect"]["to"].as_str().unwrap().starts_with("https://"), "{other}");
        }
        // The same for both, once; what is proxied without TLS stays so.
        let specs = yaml(&plain("ProxyPass / http://h/\nProxyPass /p http://h/p"));
        assert_eq!(specs[0]["tls"]["redirect"], false);
        assert_eq!(specs.iter().filter(|spec| spec["path"] == "/").count(), 2);
    }

    #[test]
    fn what_is_sent_to_tls_is_not_served_without_it() {
        const TLS: &str = "<VirtualHost *:443>\nServerName a.org\nSSLEngine on\n\
            SSLCertificateFile /etc/a.pem\nProxyPass / http://h/\n</VirtualHost>\n";
        let acme = "ProxyPass /.well-known http://acme/\nRedirect / https://a.org/";
        let rule = "RewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R]\nProxyPass / http://h/";
        for lines in [acme, rule] {
            let plain = format!("<VirtualHost *:80>\nServerName a.org\n{lines}\n</VirtualHost>\n");
            let specs = yaml(&(plain + TLS));
            assert_eq!(
                (&specs[0]["path"], &specs[0]["tls"]["redirect"]),
                (&"/".into(), &true.into())
            );
        }
    }

    #[test]
    fn clients_are_asked_for_certificates_where_apache_asks() {
        let site = |outer: &str, located: &str| {
            format!(
                "<VirtualHost *:80>\nServerName a.org\nProxyPass /open http://o/\n</VirtualHost>\n\
                 <VirtualHost *:443>\nServerName a.org\nSSLEngine on\nSSLCertificateFile a.pem\n{outer}\n\
                 ProxyPass / http://h/\n<Location /in>\n{located}\n</Location>\n</VirtualHost>\n"
            )
        };
        let of = |specs: &[serde_json::Value], path: &str| {
            let found = specs.iter().find(|spec| spec["path"] == path).unwrap();
            let text = |name: &str| found["tls"][name].as_str().unwrap_or("-").to_owned();
            (text("clientCASecret"), text("clientCertificate"), found["access"]["deny"][0].clone())
        };
        let secret =
            |how: &str| ("a.org-clients".to_owned(), how.to_owned(), serde_json::Value::Null);
        let specs = yaml(&site("SSLCACertificateFile ca.pem\nSSLVerifyClient require", ""));
        assert_eq!(of(&specs, "/"), secret("-"));
        assert_eq!(of(&specs, "/open"), secret("Optional"));
        let specs = yaml(&site("SSLCACertificatePath ca", "SSLVerifyClient require"));
        assert_eq!((of(&specs, "/"), of(&specs, "/in")), (secret("Optional"), secret("-")));
        let specs = yaml(&site("", "SSLVerifyClient require"));
        assert_eq!(of(&specs, "/in").2, "0.0.0.0/0");
        assert_eq!(of(&specs, "/"), ("-".to_owned(), "-".to_owned(), serde_json::Value::Null));
    }

    #[test]
    fn members_by_tls_are_verified_unless_apache_takes_anybody() {
        let upstream = |lines: &str| {
            let specs = yaml(&format!("ServerName a.org\n{lines}\nProxyPass / https://h/"));
            specs[0]["upstreamTLS"].clone()
        };
        let secure = |more: serde_json::Value| {
            let mut whole = serde_json::json!({"insecureSkipVerify": false});
            whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            whole
        };
        let ca = serde_json::json!({"caSecret": "a.org-members"});
        for (lines, expected) in [
            ("", serde_json::Value::Null),
            (
                "SSLProxyVerify none\nSSLProxyCACertificateFile ca.pem",
                serde_json::json!({"insecureSkipVerify": true}),
            ),
            ("SSLProxyCheckPeerName off", serde_json::json!({"insecureSkipVerify": true})),
            ("SSLProxyVerify require\nSSLProxyCheckPeerName off", serde_json::Value::Null),
            ("SSLProxyCACertificateFile ca.pem", secure(ca.clone())),
            ("<Proxy https://h>\nSSLProxyCACertificatePath ca\n</Proxy>", secure(ca)),
            ("ProxyPreserveHost On", secure(serde_json::json!({"serverName": "a.org"}))),
            (
                "<Proxy *>\nSSLProxyMachineCertificateFile c.pem\n</Proxy>",
                secure(serde_json::json!({"certificateSecret": "a.org-own"})),
            ),
        ] {
            assert_eq!(upstream(lines), expected, "{lines}");
        }
        let text = "ServerName a.org\nSSLProxyVerify none\nProxyPass / http://h/";
        let report = import(text).unwrap().report.text();
        assert!(report.contains("converted: no member is asked by TLS"), "{report}");
    }

    #[test]
    fn protocols_and_limits_of_members_are_kept() {
        let specs = yaml(
            "<Proxy balancer://b>\nBalancerMember h2c://h:1 max=3\nBalancerMember h2://h:2 max=0 acquire=200\n\
             BalancerMember wss://h:3 acquire=1s\n</Proxy>\nProxyPass /b balancer://b/\nProxyPass /h h2c://i/\n\
             ProxyPass /m http://m/ max=70000\nProxyPass /n http://n/ acquire=1",
        );
        let b = &specs[0]["members"];
        assert_eq!((&b[0]["url"], &b[0]["protocol"]), (&"http://h:1".into(), &"H2C".into()));
        assert_eq!((&b[1]["url"], &b[1]["protocol"]), (&"https://h:2".into(), &"H2".into()));
        assert_eq!(b[2]["url"], "https://h:3");
        assert_eq!(
            (&b[0]["maxInFlight"], &b[1]["maxInFlight"]),
            (&3.into(), &serde_json::Value::Null)
        );
        assert_eq!(specs[0]["balancing"]["queueFor"], "1s");
        assert_eq!(specs[1]["members"][0]["protocol"], "H2C");
        assert_eq!(specs[2]["members"][0]["maxInFlight"], 65_535);
        assert_eq!(specs[2]["balancing"]["queueFor"], "1m");
        assert!(specs[3].get("balancing").is_none());
    }

    #[test]
    fn what_is_closed_for_some_methods_is_closed() {
        let text = |inner: &str| {
            format!(
                "ProxyPass / http://h/\n<Location />\n<LimitExcept GET>\n{inner}\n</LimitExcept>\n</Location>"
            )
        };
        assert_eq!(yaml(&text("Require valid-user"))[0]["access"]["deny"][0], "0.0.0.0/0");
        assert!(yaml(&text("Require all granted"))[0].get("access").is_none());
        assert_eq!(
            yaml("ProxyPass / http://h/\nSSLRequire false")[0]["access"]["deny"][0],
            "0.0.0.0/0"
        );
    }

    #[test]
    fn texts_of_errors_are_pages() {
        let lines = "ServerName a.org\nErrorDocument 404 \"old\"\nErrorDocument 503 \"in a moment\"\n\
                     ErrorDocument 404 gone for good\nErrorDocument 403 default\nErrorDocument 500 /500.html\n\
                     ErrorDocument 200 x\nProxyErrorOverride On 404 500\nProxyPass / http://h/\n\
                     Redirect 503 /off\n<Location /own>\nProxyErrorOverride Off\n</Location>\n\
                     <Location /all>\nProxyErrorOverride On\n</Location>";
        let outcome = import(lines).unwrap();
        let pages = |path: &str| {
            let found = outcome.balancers.iter().find(|(_, b)| b.spec.path == path).unwrap();
            let pages = found.1.spec.error_pages.iter().map(|page| {
                let body = page.body.as_deref().unwrap_or("-");
                (page.statuses.join(" "), page.override_members, body.to_owned())
            });
            pages.collect::<Vec<_>>()
        };
        let page = |statuses: &str, on, body: &str| (statuses.to_owned(), on, body.to_owned());
        let own = |on| [page("404", on, "gone for good"), page("503", false, "in a moment")];
        assert_eq!(pages("/")[..2], own(true));
        assert_eq!(pages("/")[2..], [page("404 500", true, "-")]);
        assert_eq!(pages("/own"), own(false));
        assert_eq!(pages("/all")[2..], [page("400-599", true, "-")]);
        assert_eq!(outcome.report.directives().dropped, 2, "{}", outcome.report.text());
    }

    fn served(text: &str) -> Vec<(String, String, bool, String)> {
        let one = |spec: &serde_json::Value| {
            let hosts: Vec<_> = spec["hosts"].as_array().into_iter().flatten().collect();
            let hosts: Vec<_> = hosts.iter().filter_map(|host| host.as_str()).collect();
            let to = spec["members"][0]["url"].as_str().or(spec["redirect"]["to"].as_str());
            let to = to.map_or(spec["refuse"]["status"].to_string(), str::to_owned);
            let exact = spec["pathType"] == "Exact";
            (hosts.join(" "), spec["path"].as_str().unwrap().to_owned(), exact, to)
        };
        yaml(text).iter().map(one).collect()
    }

    fn row(hosts: &str, path: &str, exact: bool, to: &str) -> (String, String, bool, String) {
        (hosts.to_owned(), path.to_owned(), exact, to.to_owned())
    }

    #[test]
    fn paths_that_are_matched_alone_are_exact() {
        let text = "ServerName a.org\nRedirectMatch ^/$ /app/\nRedirectMatch 410 ^/gone$\n\
                    ProxyPassMatch ^/one$ http://h/\nProxyPassMatch ^/two$ http://h/2$0\n\
                    RewriteRule ^/three$ http://h/3 [P]\nRewriteRule ^/all/ http://h/4 [P]\n\
                    ProxyPassMatch ^/app/x$ !\nProxyPass /app http://h/app\nProxyPassMatch ^/app/y$ http://y/";
        let outcome = import(text).unwrap();
        let dropped = outcome.report.entries().iter().filter(|e| e.verdict == Verdict::Dropped);
        let dropped: Vec<_> = dropped.map(|entry| entry.place.line).collect();
        assert_eq!(dropped, [7], "{}", outcome.report.text());
        assert_eq!(
            served(text),
            [
                row("a.org", "/three", true, "http://h/3"),
                row("a.org", "/one", true, "http://h/one"),
                row("a.org", "/two", true, "http://h/2/two"),
                row("a.org", "/app/x", true, "404"),
                row("a.org", "/app", false, "http://h/app"),
                row("a.org", "/", true, "/app/"),
                row("a.org", "/gone", true, "410"),
            ]
        );
        assert!(outcome.report.text().contains("never reached: /app comes first"));
    }

    #[test]
    fn conditions_on_the_host_are_hosts() {
        let site = |rules: &str| {
            format!(
                "<VirtualHost *:80>\nServerName www.a.org\nServerAlias a.org b.org\n{rules}\n\
                 ProxyPass /x http://x/\nProxyPass / http://h/\n</VirtualHost>"
            )
        };
        let canonical = "RewriteCond %{HTTP_HOST} !^www\\. [NC]\n\
                         RewriteRule ^(.*)$ http://www.%{HTTP_HOST}$1 [R=301,L]";
        assert_eq!(
            served(&site(canonical)),
            [
                row("a.org", "/", false, "http://www.a.org/"),
                row("b.org", "/", false, "http://www.b.org/"),
                row("www.a.org", "/x", false, "http://x/"),
                row("www.a.org", "/", false, "http://h/"),
            ]
        );
        let proxied = "RewriteCond %{HTTP_HOST} ^a\\.org$ [OR]\nRewriteCond %{HTTP_HOST} =B.org\n\
                       RewriteRule ^/p/(.*)$ http://p/$1 [P]";
        assert_eq!(served(&site(proxied))[0], row("a.org b.org", "/p/", false, "http://p/"));
        let closed = format!("{proxied}\n<Location /x/in>\nRequire ip 10\n</Location>");
        let specs = yaml(&site(&closed.replace("^/p/", "^/")));
        let of = |path: &str, host: &str| {
            let has = |spec: &&serde_json::Value| {
                let hosts = spec["hosts"].as_array().unwrap();
                spec["path"] == path && hosts.iter().any(|own| own == host)
            };
            let found = specs.iter().find(has).unwrap();
            (found["members"][0]["url"].clone(), found["access"]["allow"][0].clone())
        };
        for (host, url) in [("www.a.org", "http://x/in"), ("b.org", "http://p/x/in")] {
            assert_eq!(of("/x/in", host), (url.into(), "10.0.0.0/8".into()), "{host}");
        }
        assert_eq!(of("/x", "www.a.org").1, serde_json::Value::Null);
        let anywhere = "RewriteCond %{HTTP_HOST} ^(a|B)\\.org$ [NC]\nRewriteRule ^(.*)$ http://p/$1 [P]\n\
                        ProxyPass /x http://x/";
        let rows = [row("a.org b.org", "/", false, "http://p/"), row("", "/x", false, "http://x/")];
        assert_eq!(served(anywhere), rows);
        let other = "RewriteCond %{HTTP_HOST} ^c\nRewriteRule ^/c/(.*)$ http://c/$1 [P]";
        assert_eq!(served(&site(other)).len(), 2);
        for conditions in [
            "RewriteCond %{HTTP_HOST} ^a\nRewriteCond %{HTTPS} off",
            "RewriteCond %{HTTP_HOST} ^a\nRewriteCond %{REMOTE_ADDR} ^10",
            "RewriteCond %{HTTP_HOST} (",
        ] {
            let text = site(&format!("{conditions}\nRewriteRule ^/c/(.*)$ http://c/$1 [P]"));
            assert_eq!(served(&text).len(), 2, "{conditions}");
            assert!(import(&text).unwrap().report.drops(), "{conditions}");
        }
    }

    #[test]
    fn rules_that_change_no_path_are_accounted_for_by_their_flags() {
        for (flags, verdict) in [
            ("", Verdict::Converted),
            ("[NC]", Verdict::Converted),
            ("[CO=id:x:.a.org]", Verdict::Dropped),
            ("[E=a:b]", Verdict::Dropped),
            ("[L]", Verdict::Dropped),
        ] {
            let report = import(&format!("RewriteRule ^/static/ - {flags}")).unwrap().report;
            assert_eq!(report.entries()[0].verdict, verdict, "{flags}");
        }
    }

    #[test]
    fn macros_are_written_out() {
        let text = "<Macro Site $name $names>\n<VirtualHost *>\nServerName $name.org\n\
                    ServerAlias $names\nUse App $name\n</VirtualHost>\n</Macro>\n\
                    <Macro App $to>\nProxyPass / http://$to/\n</Macro>\n\
                    Use Site a \"b.org c.org\"\nUse site d e.org\n";
        let specs = yaml(text);
        assert_eq!(specs[0]["hosts"], serde_json::json!(["a.org", "b.org", "c.org"]));
        assert_eq!(specs[1]["members"][0]["url"], "http://d/");
        for (text, error) in [
            ("Use nothing", "there is no macro nothing"),
            ("<Macro A $b>\n</Macro>\nUse A", "macro A has 1 parameters"),
            ("<Macro A>\nUse A\nUse A\n</Macro>\nUse A", "128 macros within each other"),
        ] {
            let message = import(text).unwrap_err().to_string();
            assert!(message.contains(error), "{message}");
        }
        let mut deep = "<Macro M0>\nProxyVia Off\n</Macro>\n".to_owned();
        for level in 1..40 {
            let below = format!("Use M{}\n", level - 1).repeat(8);
            let _ = write!(deep, "<Macro M{level}>\n{below}</Macro>\n");
        }
        assert!(import(&(deep + "Use M39")).unwrap_err().message.contains("too many"));
    }

    const PARTS: &str = "(<VirtualHost (a[.]org|[*]:80|_default_)>\n|</VirtualHost>\n|ServerName [a-c*./:]{1,8}\n|\
         ServerAlias [*]?[.]?[a-c.]{1,6}\n|<Proxy balancer://[ab]/?>\n|</Proxy>\n|\
         BalancerMember (https?|h2c?|ws|ajp)://[a-c/:%8]{0,8}( [a-z]{1,8}=[0-9a-z+.]{0,6}| route=a| lbset=1| status=\\+H){0,3}\n|\
         ProxyPass(Match)? [\\^]?/[a-c/.%]{0,4}([(][.][*][)][$])? (!|balancer://[ab]/?|http://[a-c./]{1,5}([$]1)?)( [a-z]{1,8}=[0-9a-z+.]{0,6}| stickysession=[a-c|]{1,3}){0,3}\n|\
         ProxyPassReverse /[a-c]{0,2} (balancer://a/|http://[a-c/]{1,4}|/[a-c])\n|\
         ProxyPassReverseCookie(Path|Domain) [/a-c.]{1,4} [/a-c.]{1,4}\n|\
         (Request)?Header (set|add|unset) [A-C-]{1,3} [a-z%]{0,4}\n|Redirect(Match|Permanent)? (4[0-9]{2} |temp )?[\\^]?/[a-c/]{0,3} (https?://[a-c]{1,3}/?|/[a-c])?([$]1)?\n|\
         <Location(Match)? [\\^]?/[a-c/]{0,3}>\n|</Location>\n|</LocationMatch>\n|Require (not )?(all (granted|denied)|ip [1-9./]{1,6}|user a)\n|<RequireAll>\n|</RequireAll>\n|\
         (Order (allow,deny|deny,allow)|Allow from (all|10)|Deny from (all|10.1))\n|SSLEngine On\n|SSLCertificateFile [a-c]\n|SSLVerifyClient (require|optional|none)\n|SSLCACertificate(File|Path) [a-c/ ]{0,3}\n|\
         SSLProxy(CACertificateFile|MachineCertificateFile|Verify|CheckPeerName) (none|off|on|[a-c])\n|<LimitExcept GET>\n|</LimitExcept>\n|UseCanonicalName On\n|LimitRequestBody [0-9]{1,3}\n|\
         RewriteCond %[{]HTTPS[}] off\n|RewriteCond %[{]HTTP_HOST[}] [!]?[\\^][a-c(.]{0,3}( [\\[]OR[]])?\n|RewriteRule [\\^]?([(][.][*][)])? (https://%[{]HTTP_HOST[}][$]1|http://a/[$]1|-) [\\[](R|P|F|R=301)[\\]]\n|<Macro A [$]b>\n|</Macro>\n|Use A c\n|ProxyTimeout [0-9a-z]{0,9}\n|ProxyVia (On|Block)\n|ErrorDocument [2-5]0[34] [a-c/ ]{1,4}\n|ProxyErrorOverride On( [45]0[0-9])?\n)";

    /// Configurations that Apache has run, and the example.
    fn real() -> Vec<String> {
        let read = |path: &str| {
            std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let cases: serde_json::Value =
            serde_json::from_str(&read("tests/apache/cases.json")).unwrap();
        let config = |case: &serde_json::Value| {
            let lines = case["config"].as_array()?.iter().filter_map(|line| line.as_str());
            Some(lines.collect::<Vec<_>>().join("\n"))
        };
        let configs = cases["cases"].as_array().unwrap().iter().filter_map(config);
        configs.chain([read("examples/apache/httpd.conf")]).collect()
    }

    /// A change of a text: what is done where, and with which bytes.
    type Change = (usize, usize, Vec<u8>);

    fn changed(text: &str, others: &[String], changes: &[Change]) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for (kind, at, new) in changes {
            let at = at % (bytes.len() + 1);
            let end = (at + new.len()).min(bytes.len());
            match kind % 5 {
                0 => drop(bytes.splice(at..at, new.iter().copied())),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..end, new.iter().copied())),
                3 => {
                    let repeated = bytes[at..].to_vec();
                    bytes.extend(repeated);
                }
                _ => {
                    let lines: Vec<_> = others[at % others.len()].lines().collect();
                    let line = lines.get(new.len() % lines.len().max(1)).copied();
                    let line = format!("\n{}\n", line.unwrap_or_default());
                    drop(bytes.splice(at..at, line.into_bytes()));
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn is_read_back(outcome: &Outcome) -> Result<(), TestCaseError> {
        let yaml = outcome.yaml();
        let reading = files::read(&yaml);
        prop_assert!(reading.faults.is_empty(), "{:?}\n{yaml}", reading.faults);
        prop_assert_eq!(reading.rules.len(), outcome.balancers.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(outcome) = import(&String::from_utf8_lossy(&bytes)) {
                is_read_back(&outcome)?;
            }
        }

        #[test]
        fn no_change_of_a_real_configuration_is_too_odd(
            which in any::<prop::sample::Index>(),
            changes in proptest::collection::vec(
                (any::<usize>(), any::<usize>(), proptest::collection::vec(any::<u8>(), 0..6)),
                1..8,
            ),
        ) {
            static REAL: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(real);
            let one: &String = which.get(REAL.as_slice());
            let text = changed(one, &REAL, &changes);
            if let Ok(outcome) = import(&text) {
                is_read_back(&outcome)?;
            }
        }

        #[test]
        fn no_configuration_is_too_odd(text in "(?s).{0,200}") {
            let _ = import(&text);
        }

        #[test]
        fn what_is_written_is_always_read_back(parts in proptest::collection::vec(PARTS, 0..14)) {
            if let Ok(outcome) = import(&parts.concat()) {
                is_read_back(&outcome)?;
                prop_assert!(!outcome.report.text().contains("it does not lead") || outcome.report.drops());
            }
        }
    }
}
