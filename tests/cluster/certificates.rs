//! TLS in a cluster: certificates from Secrets, which are asked for one by one.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::life::{balancer, condition, pod, until};
use crate::pods::Namespace;
use crate::support::port::free;
use crate::support::{LIMIT, Seen, read_answer};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    a_host_is_served_with_the_certificate_of_its_secret,
    a_certificate_is_used_from_when_it_is_valid_and_its_end_is_told,
    clients_are_verified_by_the_authorities_of_a_secret,
    secrets_that_nobody_names_are_not_asked_for,
    what_is_spoken_with_members_is_found_from_the_port_and_trusted_by_a_secret,
];

/// A certificate that is its own authority.
pub struct Own(CertificateDer<'static>);

/// Makes a Secret, or changes it.
pub fn secret(namespace: &Namespace, name: &str, hosts: &[&str]) -> Own {
    let hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    secret_of(namespace, name, &CertificateParams::new(hosts).unwrap())
}

fn secret_of(namespace: &Namespace, name: &str, params: &CertificateParams) -> Own {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    });
    namespace.apply(&object.to_string());
    Own(certificate.der().clone())
}

impl Own {
    /// A page by TLS, if the server has this certificate.
    pub fn get(&self, address: SocketAddr, host: &str) -> std::io::Result<Seen> {
        self.get_as(address, host, None)
    }

    /// The same by a client that has a certificate of its own.
    fn get_as(
        &self,
        address: SocketAddr,
        host: &str,
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> std::io::Result<Seen> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match client {
            Some((own, key)) => builder.with_client_auth_cert(vec![own], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        while client.is_handshaking() {
            client.complete_io(&mut stream)?;
        }
        let mut stream = BufReader::new(StreamOwned::new(client, stream));
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut stream, "GET").ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn a_host_is_served_with_the_certificate_of_its_secret(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("tls");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let secure = free();
    let default = format!("{}/default", namespace.name);
    let listen = ["--listen-tls", &secure.to_string(), "--default-certificate", &default];
    let gibbon = Gibbon::of(&namespace, &listen);
    namespace.apply(&balancer("app", "www.site.com", "  tls: {secretName: www}\n"));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    assert!(message.contains("/www: it does not exist"), "{message}");

    let first = secret(&namespace, "www", &["www.site.com"]);
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    let seen = first.get(secure, "www.site.com").unwrap();
    assert_eq!((seen.status, seen.text().as_str()), (200, "app-0"));
    assert_eq!(gibbon.get("www.site.com", "/").status, 308);
    // One that changes is in use for the next handshake.
    let second = secret(&namespace, "www", &["www.site.com"]);
    eventually("it is in use", || second.get(secure, "www.site.com").is_ok());
    assert!(first.get(secure, "www.site.com").is_err());
    // One that is not for the host is named; one that is gone stays in use as it was.
    let third = secret(&namespace, "www", &["other.site.com"]);
    let message = until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    assert!(message.contains("its certificate is not for www.site.com"), "{message}");
    assert!(third.get(secure, "other.site.com").is_err());
    let fourth = secret(&namespace, "www", &["www.site.com"]);
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    control_plane.delete(&namespace.path("secrets/www"));
    until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    assert_eq!(fourth.get(secure, "www.site.com").unwrap().text(), "app-0");

    // The default is for hosts without one; of two for a host the older Balancer's counts.
    let fallback = secret(&namespace, "default", &["plain.site.com"]);
    namespace.apply(&balancer("plain", "plain.site.com", ""));
    eventually("the default is in use", || fallback.get(secure, "plain.site.com").is_ok());
    secret(&namespace, "www", &["www.site.com"]);
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    secret(&namespace, "again", &["www.site.com"]);
    namespace.apply(&balancer("later", "www.site.com", "  path: /x\n  tls: {secretName: again}\n"));
    let message = until(&namespace, "later", "ResolvedRefs", "False", "CertificateConflict");
    assert!(message.contains("host www.site.com has the certificate of Secret"), "{message}");
}

fn a_certificate_is_used_from_when_it_is_valid_and_its_end_is_told(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("valid");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let secure = free();
    let _gibbon = Gibbon::of(&namespace, &["--listen-tls", &secure.to_string()]);
    namespace.apply(&balancer("app", "www.site.com", "  tls: {secretName: www}\n"));
    until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(vec!["www.site.com".to_owned()]).unwrap();
    params.not_before = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(5);
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(12);
    let own = secret_of(&namespace, "www", &params);
    let said = |what: &str| {
        let (_, _, message) = condition(&namespace, "app", "ResolvedRefs");
        message.contains(what)
    };
    eventually("it is early", || said("its certificate is not valid before"));
    assert!(own.get(secure, "www.site.com").is_err());
    // Nothing changes but the time.
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(own.get(secure, "www.site.com").unwrap().text(), "app-0");
    eventually("it has ended", || said("its certificate has expired"));
}

fn clients_are_verified_by_the_authorities_of_a_secret(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("mtls");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let secure = free();
    let _gibbon = Gibbon::of(&namespace, &["--listen-tls", &secure.to_string()]);
    let server = secret(&namespace, "www", &["www.site.com"]);
    let tls = "  tls: {secretName: www, clientCASecret: ca}\n";
    namespace.apply(&balancer("app", "www.site.com", tls));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    let said = "/ca: it does not exist; its hosts are not served before there are authorities";
    assert!(message.contains(said), "{message}");
    assert!(server.get(secure, "www.site.com").is_err());

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca"},
        "type": "Opaque", "stringData": {"ca.crt": authority.pem()},
    });
    namespace.apply(&object.to_string());
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert!(server.get(secure, "www.site.com").is_err());
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["ann".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&own, &Issuer::new(params, key)).unwrap();
    let own = PrivateKeyDer::Pkcs8(own.serialize_der().into());
    let seen = server.get_as(secure, "www.site.com", Some((certificate.der().clone(), own)));
    assert_eq!(seen.unwrap().text(), "app-0");
}

fn secrets_that_nobody_names_are_not_asked_for(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("secrets");
    // It may see that there are Secrets, and read one of them only.
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["named"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {"apiGroups": ["gibbon.dev"], "resources": ["balancers"], "verbs": ["list", "watch"]},
        {"apiGroups": ["gibbon.dev"], "resources": ["balancers/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ]);
    let role = json!({"metadata": {"name": "gibbon"}, "rules": rules});
    control_plane.create(&namespace.path("rbac.authorization.k8s.io/v1/roles"), &role);
    let binding = json!({
        "metadata": {"name": "gibbon"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gibbon"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace.name}],
    });
    control_plane.create(&namespace.path("rbac.authorization.k8s.io/v1/rolebindings"), &binding);
    secret(&namespace, "other", &["other.site.com"]);
    let named = secret(&namespace, "named", &["www.site.com"]);
    namespace.apply(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: app}\nspec:\n  \
         hosts: [www.site.com]\n  tls: {secretName: named}\n  redirect: {to: /x, status: 302}\n",
    );
    let secure = free();
    let config = control_plane.kubeconfig_of(&namespace.name, "default");
    let own = ["--namespaces", &namespace.name, "--lease-namespace", &namespace.name];
    let listen = secure.to_string();
    let flags = [&own[..], &["--listen-tls", &listen]].concat();
    let gibbon = Gibbon::ready(&config, &flags);
    eventually("it is served", || named.get(secure, "www.site.com").is_ok_and(|s| s.status == 302));
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert!(!gibbon.log().contains("forbidden"), "{}", gibbon.log());
}

fn what_is_spoken_with_members_is_found_from_the_port_and_trusted_by_a_secret(
    control_plane: &ControlPlane,
) {
    let namespace = control_plane.namespace("upstream");
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "tls", "port": 443, "targetPort": 8443, "appProtocol": "https"},
        {"name": "grpc", "port": 81, "targetPort": 8081, "appProtocol": "kubernetes.io/h2c"},
    ]);
    let service =
        json!({"metadata": {"name": "app"}, "spec": {"selector": {"app": "app"}, "ports": ports}});
    control_plane.create(&namespace.path("services"), &service);
    let _pod = namespace.pod("app-0", "app");
    let gibbon = Gibbon::of(&namespace, &["--listen-tls", &free().to_string()]);
    namespace.apply(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: app}\nspec:\n  \
         hosts: [www.site.com]\n  upstreamTLS: {caSecret: ca}\n  members:\n  \
         - service: {name: app, port: http}\n  - service: {name: app, port: tls}\n  \
         - service: {name: app, port: grpc}\n  - service: {name: app, port: 80}\n    \
         protocol: HTTPS1\n",
    );
    let message = until(&namespace, "app", "ResolvedRefs", "False", "InvalidCertificate");
    assert!(message.contains("spec.upstreamTLS.caSecret: Secret "), "{message}");
    let table = gibbon.table();
    let members = table["balancers"][0]["members"].as_array().unwrap();
    let spoken: Vec<_> = members.iter().map(|m| m["protocol"].as_str().unwrap()).collect();
    assert_eq!(spoken, ["HTTP1", "HTTPS", "H2C", "HTTPS1"]);
    // Of any type.
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca"},
        "stringData": {"ca.crt": certificate.pem()},
    });
    namespace.apply(&object.to_string());
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    namespace.apply(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: app}\nspec:\n  \
         hosts: [www.site.com]\n  upstreamTLS: {insecureSkipVerify: true}\n  members:\n  \
         - service: {name: app, port: tls}\n",
    );
    let message = until(&namespace, "app", "ResolvedRefs", "True", "MembersNotVerified");
    assert!(message.contains("nobody verifies who the members are"), "{message}");
}
