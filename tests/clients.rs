//! Certificates of clients: who needs one, who is believed, and what is no way around it.

mod support;

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::ClientConfig;
use support::authority::{Authority, Credentials, connect};
use support::{
    Gibbon, Member, Options, Seen, balancer, ca_secret, eventually, join, member, named, ok,
};

const HOST: &str = "www.site.com";
const SPOOF: &str = "X-Client-Cert-Subject: CN=root\r\nx_client_cert_subject: CN=root\r\n";

/// The authority of the servers, that of the clients, and a member.
struct Site {
    servers: Authority,
    clients: Authority,
    app: Member,
}

impl Site {
    fn new() -> Self {
        Self { servers: Authority::new(), clients: Authority::new(), app: Member::new(ok("x")) }
    }

    fn secrets(&self) -> String {
        join(&[
            self.servers.secret("www", &[HOST, "*.site.com"]),
            ca_secret("ca", &self.clients.certificate.pem()),
        ])
    }

    /// A Balancer for a host and a path with this `tls`.
    fn balancer(&self, name: &str, host: &str, path: &str, tls: &str) -> String {
        let members = [member(self.app.address, "")];
        let tls = if tls.is_empty() { String::new() } else { format!("tls: {{{tls}}}") };
        named(name, path, &members, &tls).replace("[www.site.com]", &format!("['{host}']"))
    }

    fn plain(&self) -> Arc<ClientConfig> {
        Arc::new(self.servers.config())
    }

    fn as_client(&self, client: &Credentials) -> Arc<ClientConfig> {
        Arc::new(self.servers.config_as(client))
    }

    /// Who the member was told that the client is, in the last request.
    fn told(&self) -> Vec<String> {
        let received = self.app.received();
        let last = received.last().unwrap();
        let named =
            |name: &str| name.replace('_', "-").eq_ignore_ascii_case("x-client-cert-subject");
        let told = last.headers.iter().filter(|(name, _)| named(name));
        told.map(|(_, value)| value.clone()).collect()
    }
}

/// One request on a connection for its host.
fn ask(config: &Arc<ClientConfig>, gibbon: &Gibbon, host: &str, path: &str) -> Option<Seen> {
    connect(config, gibbon, host).ok()?.try_ask(host, path, SPOOF)
}

fn status(config: &Arc<ClientConfig>, gibbon: &Gibbon, host: &str, path: &str) -> Option<u16> {
    ask(config, gibbon, host, path).map(|seen| seen.status)
}

const REQUIRED: &str = "secretName: www, clientCASecret: ca";
const OPTIONAL: &str = "secretName: www, clientCASecret: ca, clientCertificate: Optional";

#[test]
fn who_must_have_a_certificate_is_served_with_a_good_one_only() {
    let site = Site::new();
    let gibbon = Gibbon::start(&join(&[site.secrets(), site.balancer("app", HOST, "/", REQUIRED)]));
    assert_eq!(status(&site.plain(), &gibbon, HOST, "/"), None);
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    for bad in [
        Authority::new().client("ann"),
        site.servers.client("ann"),
        site.clients.client_with("ann", past),
        site.clients.client_with("ann", server),
    ] {
        assert_eq!(status(&site.as_client(&bad), &gibbon, HOST, "/"), None);
    }
    assert_eq!(site.app.count(), 0);
    let refused = "gibbon_tls_handshakes_total{result=\"client_certificate\",version=\"none\"}";
    eventually(|| (gibbon.metric(refused) == Some(5.0)).then_some(()));
    let ann = site.as_client(&site.clients.client("ann"));
    assert_eq!(status(&ann, &gibbon, HOST, "/"), Some(200));
    assert_eq!(site.told(), ["CN=ann,O=Site"]);
    // Without TLS there is no certificate.
    assert_eq!(gibbon.get(HOST, "/").status, 308);
}

#[test]
fn a_subject_that_a_client_sets_reaches_nobody() {
    let site = Site::new();
    let yaml = join(&[
        site.secrets(),
        site.balancer("app", HOST, "/", OPTIONAL),
        site.balancer("other", "other.site.com", "/", "secretName: www, redirect: false"),
    ]);
    let gibbon = Gibbon::with(&yaml, Options::default().trusting());
    assert_eq!(status(&site.plain(), &gibbon, HOST, "/"), Some(200));
    assert_eq!(site.told(), Vec::<String>::new());
    assert_eq!(status(&site.plain(), &gibbon, "other.site.com", "/"), Some(200));
    assert_eq!(site.told(), Vec::<String>::new());
    let spoofed = [("X-Client-Cert-Subject", "CN=root"), ("x-client_cert_subject", "CN=root")];
    assert_eq!(gibbon.ask("GET", "other.site.com", "/", &spoofed).status, 200);
    assert_eq!(site.told(), Vec::<String>::new());
    // Nor does the certificate itself tell a host that did not ask for it.
    let ann = site.as_client(&site.clients.client("ann"));
    let mut connection = connect(&ann, &gibbon, HOST).unwrap();
    assert_eq!(connection.ask(HOST, "/").status, 200);
    assert_eq!(site.told(), ["CN=ann,O=Site"]);
    assert_eq!(connection.ask("other.site.com", "/").status, 200);
    assert_eq!(site.told(), Vec::<String>::new());
    // Optional is not whatever it may be.
    let stranger = site.as_client(&Authority::new().client("ann"));
    assert_eq!(status(&stranger, &gibbon, HOST, "/"), None);
}

#[test]
fn a_connection_for_one_host_is_none_for_another_that_wants_more() {
    let site = Site::new();
    let other = Authority::new();
    let yaml = join(&[
        site.secrets(),
        ca_secret("other", &other.certificate.pem()),
        site.balancer("open", "open.site.com", "/", "secretName: www"),
        site.balancer("optional", "optional.site.com", "/", OPTIONAL),
        site.balancer("required", "required.site.com", "/", REQUIRED),
        site.balancer("other", "other.site.com", "/", "secretName: www, clientCASecret: other"),
    ]);
    let gibbon = Gibbon::start(&yaml);
    let ann = site.as_client(&site.clients.client("ann"));
    let hosts = ["open", "optional", "required", "other"];
    for (config, from, served) in [
        (&site.plain(), "open", [200, 421, 421, 421]),
        (&site.plain(), "optional", [200, 200, 421, 421]),
        (&ann, "open", [200, 421, 421, 421]),
        (&ann, "optional", [200, 200, 200, 421]),
        (&ann, "required", [200, 200, 200, 421]),
    ] {
        let mut connection = connect(config, &gibbon, &format!("{from}.site.com")).unwrap();
        for (host, status) in hosts.iter().zip(served) {
            let seen = connection.ask(&format!("{host}.site.com"), "/");
            assert_eq!(seen.status, status, "{from} to {host}");
        }
    }
    // What is refused is not passed on.
    let received = site.app.received();
    let by_nobody = |host: &str| {
        let to = received.iter().filter(|r| r.header("x-forwarded-host") == Some(host));
        to.filter(|r| r.header("x-client-cert-subject").is_none()).count()
    };
    assert_eq!((by_nobody("required.site.com"), by_nobody("other.site.com")), (0, 0));
    // A client that names no server has shown nothing to any host.
    let mut nameless = site.servers.config();
    nameless.enable_sni = false;
    assert!(connect(&Arc::new(nameless), &gibbon, "required.site.com").is_err());
}

#[test]
fn a_session_from_before_is_no_way_around_a_certificate() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let site = Site::new();
        let open = join(&[site.secrets(), site.balancer("app", HOST, "/", "secretName: www")]);
        let gibbon = Gibbon::start(&open);
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        let config = config.with_root_certificates(site.servers.roots.clone());
        let plain = Arc::new(config.with_no_client_auth());
        assert_eq!(status(&plain, &gibbon, HOST, "/"), Some(200));
        let mut kept = connect(&plain, &gibbon, HOST).unwrap();
        assert!(kept.is_resumed(), "{version:?}");
        gibbon.write(
            "balancers.yaml",
            &join(&[site.secrets(), site.balancer("app", HOST, "/", REQUIRED)]),
        );
        eventually(|| (kept.ask(HOST, "/").status == 421).then_some(()));
        let before = site.app.count();
        for _ in 0..3 {
            assert_eq!(status(&plain, &gibbon, HOST, "/"), None);
        }
        assert_eq!(site.app.count(), before);
    }
}

#[test]
fn a_session_or_connection_of_an_authority_that_is_gone_is_not_believed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let site = Site::new();
        let rule = site.balancer("app", HOST, "/", REQUIRED);
        let server = site.servers.secret("www", &[HOST]);
        let with = |authorities: &[&Authority]| {
            let pem: String = authorities.iter().map(|a| a.certificate.pem()).collect();
            join(&[server.clone(), ca_secret("ca", &pem), rule.clone()])
        };
        let gibbon = Gibbon::start(&with(&[&site.clients]));
        let (chain, key) = site.clients.client("ann");
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        let config = config.with_root_certificates(site.servers.roots.clone());
        let ann = Arc::new(config.with_client_auth_cert(chain, key).unwrap());
        assert_eq!(status(&ann, &gibbon, HOST, "/"), Some(200));
        let mut open = connect(&ann, &gibbon, HOST).unwrap();
        assert!(open.is_resumed(), "{version:?}");
        assert_eq!(open.ask(HOST, "/").status, 200);
        assert_eq!(site.told(), ["CN=ann,O=Site"]);
        // One more authority ends nothing.
        let newer = Authority::new();
        gibbon.write("balancers.yaml", &with(&[&newer, &site.clients]));
        let bob = site.as_client(&newer.client("bob"));
        eventually(|| status(&bob, &gibbon, HOST, "/").filter(|status| *status == 200));
        assert_eq!(open.ask(HOST, "/").status, 200);
        assert_eq!(status(&ann, &gibbon, HOST, "/"), Some(200));
        // One less ends what it has vouched for.
        gibbon.write("balancers.yaml", &with(&[&newer]));
        eventually(|| (open.ask(HOST, "/").status == 421).then_some(()));
        for _ in 0..3 {
            assert_eq!(status(&ann, &gibbon, HOST, "/"), None);
        }
        assert_eq!(status(&bob, &gibbon, HOST, "/"), Some(200));
    }
}

#[test]
fn paths_of_a_host_may_differ_in_whether_they_need_one() {
    let site = Site::new();
    let gibbon = Gibbon::start(&join(&[
        site.secrets(),
        site.balancer("admin", HOST, "/admin/", REQUIRED),
        site.balancer("follows", HOST, "/api/", "secretName: www"),
        site.balancer("open", HOST, "/", OPTIONAL),
    ]));
    let ann = site.as_client(&site.clients.client("ann"));
    for (config, statuses) in [(&site.plain(), [200, 403, 403]), (&ann, [200, 200, 200])] {
        for (path, expected) in ["/", "/admin/", "/api/"].into_iter().zip(statuses) {
            assert_eq!(status(config, &gibbon, HOST, path), Some(expected), "{path}");
        }
    }
    let refused = gibbon.metric("gibbon_refused_requests_total{reason=\"client_certificate\"}");
    assert_eq!(refused, Some(2.0));
}

#[test]
fn without_tls_nobody_has_a_certificate_whatever_is_said() {
    let site = Site::new();
    let yaml = join(&[
        site.secrets(),
        site.balancer("app", HOST, "/", &format!("{REQUIRED}, redirect: false")),
        site.balancer("follows", HOST, "/api/", ""),
        site.balancer("solver", HOST, "/.well-known/acme-challenge/token", ""),
        site.balancer("wild", "*.site.com", "/deep/", REQUIRED),
        site.balancer("shallow", "a.site.com", "/shallow/", "secretName: www, redirect: false"),
    ]);
    let gibbon = Gibbon::with(&yaml, Options::default().trusting());
    let https = [("X-Forwarded-Proto", "https"), ("X-Client-Cert-Subject", "CN=root")];
    for (host, path, status) in [
        (HOST, "/", 403),
        (HOST, "/api/", 403),
        (HOST, "/.well-known/acme-challenge/other", 403),
        (HOST, "/.well-known/acme-challenge/token", 200),
        (HOST, "/.well-known/acme-challenge/../../api/", 403),
        ("a.site.com", "/shallow/", 200),
        ("a.site.com", "/deep/", 403),
    ] {
        assert_eq!(gibbon.ask("GET", host, path, &https).status, status, "{host}{path}");
    }
    // A host that asks for nothing falls through to a wildcard that does.
    let ann = site.as_client(&site.clients.client("ann"));
    for config in [&site.plain(), &ann] {
        assert_eq!(status(config, &gibbon, "a.site.com", "/shallow/"), Some(200));
        assert_eq!(status(config, &gibbon, "a.site.com", "/deep/"), Some(403));
    }
    assert_eq!(status(&ann, &gibbon, "b.site.com", "/deep/"), Some(200));
    assert_eq!(status(&site.plain(), &gibbon, "b.site.com", "/deep/"), None);
}

#[test]
fn without_authorities_nobody_is_served_and_the_last_good_ones_stay() {
    let site = Site::new();
    let rule = site.balancer("app", HOST, "/", OPTIONAL);
    let server = site.servers.secret("www", &[HOST]);
    let ann = site.as_client(&site.clients.client("ann"));
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let mut old = CertificateParams::new(Vec::new()).unwrap();
    expired(&mut old);
    let old = old.self_signed(&key).unwrap().pem();
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----";
    let with = |ca: &str| join(&[server.clone(), ca.to_owned(), rule.clone()]);
    let broken = [
        (ca_secret("other", "x"), "it does not exist"),
        (ca_secret("ca", "no certificate"), "its ca.crt has no certificate"),
        (ca_secret("ca", garbage), "certificate 1 of its ca.crt cannot be read"),
        (
            ca_secret("ca", &(site.clients.certificate.pem() + garbage)),
            "certificate 2 of its ca.crt cannot be read",
        ),
        (ca_secret("ca", &old), "every certificate of its ca.crt has expired"),
        (ca_secret("ca", &key.serialize_pem()), "its ca.crt has no certificate"),
        (site.servers.secret("ca", &[HOST]), "it has no ca.crt"),
    ];
    let gibbon = Gibbon::start(&with(&broken[0].0));
    let named = |said: &str| {
        let said =
            format!("certificates: site/app: spec.tls.clientCASecret: Secret site/ca: {said}");
        eventually(|| gibbon.page("/readyz?verbose").text().contains(&said).then_some(()));
    };
    for (ca, said) in &broken {
        gibbon.write("balancers.yaml", &with(ca));
        named(&format!("{said}; its hosts are not served before there are authorities"));
        for config in [&site.plain(), &ann] {
            let error = connect(config, &gibbon, HOST).map(drop).unwrap_err();
            assert!(error.to_string().contains("AccessDenied"), "{said}: {error}");
        }
    }
    assert_eq!(site.app.count(), 0);
    let refused = "gibbon_tls_handshakes_total{result=\"no_client_ca\",version=\"none\"}";
    eventually(|| (gibbon.metric(refused) == Some(2.0 * broken.len() as f64)).then_some(()));
    gibbon.write("balancers.yaml", &with(&ca_secret("ca", &site.clients.certificate.pem())));
    eventually(|| status(&ann, &gibbon, HOST, "/"));
    for (ca, said) in &broken {
        gibbon.write("balancers.yaml", &with(ca));
        named(&format!("{said}\n"));
        assert_eq!(status(&ann, &gibbon, HOST, "/"), Some(200));
        assert_eq!(site.told(), ["CN=ann,O=Site"]);
    }
    let stranger = site.as_client(&Authority::new().client("ann"));
    assert_eq!(status(&stranger, &gibbon, HOST, "/"), None);
}

#[test]
fn of_two_authorities_for_a_host_the_first_counts_and_the_other_rule_serves_nobody() {
    let site = Site::new();
    let other = Authority::new();
    let gibbon = Gibbon::start(&join(&[
        site.secrets(),
        ca_secret("other", &other.certificate.pem()),
        site.balancer("a", HOST, "/", REQUIRED),
        site.balancer("b", HOST, "/b/", "clientCASecret: other, clientCertificate: Optional"),
    ]));
    let ann = site.as_client(&site.clients.client("ann"));
    assert_eq!(status(&ann, &gibbon, HOST, "/"), Some(200));
    assert_eq!(status(&ann, &gibbon, HOST, "/b/"), Some(403));
    assert_eq!(status(&site.as_client(&other.client("bob")), &gibbon, HOST, "/b/"), None);
    let said = "site/b: spec.tls.clientCASecret: clients of host www.site.com are verified by Secret \
                site/ca";
    let verbose = gibbon.page("/readyz?verbose").text();
    assert!(verbose.contains(said), "{verbose}");
}

#[test]
fn trailers_say_nothing_of_who_asks() {
    let site = Site::new();
    let gibbon = Gibbon::start(&balancer(&[member(site.app.address, "")], ""));
    let mut client = gibbon.client();
    client.send("POST / HTTP/1.1\r\nHost: www.site.com\r\nTransfer-Encoding: chunked\r\n");
    client.send("Trailer: X-Sum, X-Real-IP, X-Client-Cert-Subject, X_Client_Cert_Subject\r\n\r\n");
    client.send(format!("1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Real-IP: 1.1.1.1\r\n{SPOOF}\r\n"));
    assert_eq!(client.read().unwrap().status, 200);
    assert_eq!(site.app.received()[0].trailers, [("x-sum".to_owned(), "1".to_owned())]);
}
