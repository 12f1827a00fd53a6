//! Certificates and keys as people bring them: which are taken, what is said of the others, and that
//! nothing anywhere says what is in a key.

mod support;

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gibbon::source::certificate::{Content, read};
use gibbon::table::tls::{Certificate, SecretId};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use support::port::free;
use support::{Client, eventually, secret_of};

const GIBBON: &str = env!("CARGO_BIN_EXE_gibbon");
const HOST: &str = "www.site.com";
/// 2026-06-01.
const NOW: i64 = 1_780_272_000;

/// A directory of the test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gibbon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// What openssl makes of a text.
    fn openssl(&self, arguments: &str, input: &str) -> Vec<u8> {
        let mut openssl = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        openssl.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = openssl.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {complaint}");
        output.stdout
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, one below it, and a certificate of that for the host.
struct Chain {
    root: rcgen::Certificate,
    between: String,
    own: String,
    key: KeyPair,
}

impl Chain {
    fn new(kind: &'static SignatureAlgorithm) -> Self {
        Self::until(kind, 2027)
    }

    fn until(kind: &'static SignatureAlgorithm, year: i32) -> Self {
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().unwrap())
        };
        let ((root, root_key), (mut between, between_key)) = (authority(), authority());
        between.distinguished_name.push(rcgen::DnType::OrganizationName, "between");
        let certificate = root.self_signed(&root_key).unwrap();
        let root = Issuer::new(root, root_key);
        let between_pem = between.signed_by(&between_key, &root).unwrap().pem();
        let key = KeyPair::generate_for(kind).unwrap();
        let mut own = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        (own.not_before, own.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        let own = own.signed_by(&key, &Issuer::new(between, between_key)).unwrap().pem();
        Self { root: certificate, between: between_pem, own, key }
    }

    fn pem(&self) -> String {
        self.own.clone() + &self.between
    }

    /// Whether a client that knows the root trusts a server with this.
    fn is_trusted(&self, certificate: &Certificate) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&certificate.config)).unwrap();
        while client.is_handshaking() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            client.write_tls(&mut up).unwrap();
            server.read_tls(&mut up.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            server.write_tls(&mut down).unwrap();
            client.read_tls(&mut down.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }
}

fn tried(certificate: &[u8], key: &[u8]) -> Result<Certificate, String> {
    tried_at(certificate, key, NOW)
}

fn tried_at(certificate: &[u8], key: &[u8], now: i64) -> Result<Certificate, String> {
    let id = SecretId { namespace: "site".into(), name: "www".into() };
    let (certificate, key) = (Some(certificate.to_vec()), Some(key.to_vec()));
    read(id, &Content { certificate, key, ca: None }, now)
}

#[test]
fn what_people_bring_is_taken_if_it_is_whole() {
    let directory = Directory::new("certificates-good");
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let kinds = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
        &PKCS_RSA_SHA256,
    ];
    for kind in kinds {
        let chain = Chain::new(kind);
        let (pem, key) = (chain.pem(), chain.key.serialize_pem());
        let text = directory.openssl("x509 -text", &chain.own);
        let mut cases = vec![
            ("plain", pem.clone().into_bytes(), key.clone().into_bytes()),
            ("CRLF", crlf(&pem).into_bytes(), crlf(&key).into_bytes()),
            ("no line end", pem.trim_end().into(), key.trim_end().into()),
            ("text before", [&text[..], chain.between.as_bytes()].concat(), key.clone().into()),
            ("comments", format!("# site\n{pem}\n# end").into(), format!("Bag: 1\n{key}").into()),
            ("key beside", (pem.clone() + &key).into(), (key.clone() + &pem).into()),
        ];
        if !std::ptr::eq(kind, &raw const PKCS_ED25519) {
            // PKCS#1 and SEC1, as older tools write them.
            let old = directory.openssl("pkey -traditional", &key);
            cases.push(("old", pem.clone().into(), old.clone()));
            let parameters =
                b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
            cases.push(("parameters", pem.clone().into(), [&parameters[..], &old].concat()));
        }
        for (name, certificate, key) in cases {
            let read = tried(&certificate, &key);
            let read = read.unwrap_or_else(|error| panic!("{kind:?}, {name}: {error}"));
            assert!(chain.is_trusted(&read), "{kind:?}, {name}");
        }
        // Without what is between, it is taken: some clients know that.
        assert!(!chain.is_trusted(&tried(chain.own.as_bytes(), key.as_bytes()).unwrap()));
    }
}

#[test]
fn of_what_is_broken_it_is_said_how_and_nothing_of_the_key() {
    let directory = Directory::new("certificates-bad");
    let (chain, rsa) = (Chain::new(&PKCS_ECDSA_P256_SHA256), Chain::new(&PKCS_RSA_SHA256));
    let other = KeyPair::generate().unwrap().serialize_pem();
    let (pem, key) = (chain.pem(), chain.key.serialize_pem());
    let der = directory.openssl("x509 -outform DER", &chain.own);
    let key_der = directory.openssl("pkey -outform DER", &key);
    let encrypted = directory.openssl("pkcs8 -topk8 -passout pass:x", &key);
    let old_encrypted =
        directory.openssl("pkey -traditional -aes128 -passout pass:x", &rsa.key.serialize_pem());
    let public = directory.openssl("pkey -pubout", &key);
    let small = directory.openssl("genrsa 512", "");
    let request = chain_request(&chain.key);
    let odd = directory.openssl("ecparam -name secp256k1 -genkey -noout", "");
    let odd = String::from_utf8(odd).unwrap();
    std::fs::write(directory.0.join("odd.pem"), &odd).unwrap();
    let odd_own = directory.openssl("req -x509 -key odd.pem -subj /CN=www.site.com -days 3650", "");
    let lines: Vec<_> = key.lines().collect();
    let torn = format!("{}\n{}\n", lines[0], lines[1]);
    let no_begin = lines[1..].join("\n");
    let base64 = |text: &[u8]| STANDARD.encode(text).into_bytes();
    let utf_16: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let is_no_key = "its tls.key is no private key in PEM";
    let no_certificate = "its tls.crt has no certificate";
    let today = jiff::Timestamp::now().as_second() + 60;
    let error = tried_at(&odd_own, odd.as_bytes(), today).map(|_| ()).unwrap_err();
    assert!(error.contains("of a kind that cannot be used"), "{error}");
    let cases: Vec<(&str, Vec<u8>, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), key.clone().into(), no_certificate),
        ("blank", b" \n\n".to_vec(), key.clone().into(), no_certificate),
        ("words", b"see the vault".to_vec(), key.clone().into(), no_certificate),
        ("DER", der, key.clone().into(), no_certificate),
        ("base64 twice", base64(pem.as_bytes()), key.clone().into(), no_certificate),
        ("the key", key.clone().into(), key.clone().into(), no_certificate),
        ("a request", request.into(), key.clone().into(), no_certificate),
        ("torn", pem[..200].into(), key.clone().into(), "its tls.crt is not PEM"),
        ("not base64", pem.replace("MII", "M!I").into(), key.clone().into(), "is not PEM"),
        ("shortened", shortened(&chain.own).into(), key.clone().into(), "cannot be read"),
        (
            "the wrong way round",
            (chain.between.clone() + &chain.own).into(),
            key.clone().into(),
            "its tls.key is not that of its tls.crt",
        ),
        ("no key", pem.clone().into(), Vec::new(), is_no_key),
        ("DER key", pem.clone().into(), key_der, is_no_key),
        ("base64 twice key", pem.clone().into(), base64(key.as_bytes()), is_no_key),
        ("torn key", pem.clone().into(), torn.into(), is_no_key),
        ("key without begin", pem.clone().into(), no_begin.into(), is_no_key),
        ("UTF-16", pem.clone().into(), utf_16, is_no_key),
        ("the certificate as key", pem.clone().into(), pem.clone().into(), is_no_key),
        ("public key", pem.clone().into(), public, is_no_key),
        ("encrypted", pem.clone().into(), encrypted, "its tls.key is encrypted"),
        ("encrypted as of old", rsa.pem().into(), old_encrypted, "its tls.key is encrypted"),
        ("another key", pem.clone().into(), other.into(), "is not that of its tls.crt"),
        (
            "a key of another kind",
            pem.clone().into(),
            rsa.key.serialize_pem().into(),
            "is not that of its tls.crt",
        ),
        ("a small key", rsa.pem().into(), small, "of a kind that cannot be used"),
        (
            "expired",
            Chain::until(&PKCS_ED25519, 2024).pem().into(),
            key.clone().into(),
            "its certificate has expired: Jan  1",
        ),
    ];
    for (name, certificate, key, said) in cases {
        let error = tried(&certificate, &key).map(|_| ()).unwrap_err();
        assert!(error.contains(said), "{name}: {error:?} is not {said:?}");
        assert!(!Parts::of(&key).are_in(&error), "{name}: {error}");
    }
}

fn chain_request(key: &KeyPair) -> String {
    let params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// PEM of a certificate whose end is missing.
fn shortened(pem: &str) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let bytes = STANDARD.decode(body).unwrap();
    let body = STANDARD.encode(&bytes[..bytes.len() - 20]);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Parts of a key by which one could know it.
struct Parts<'k>(HashSet<&'k [u8]>);

impl<'k> Parts<'k> {
    const LENGTH: usize = 12;

    fn of(key: &'k [u8]) -> Self {
        let is_plain = |part: &&[u8]| {
            part.iter().all(|byte| !byte.is_ascii_whitespace())
                && !part.windows(3).any(|window| window == b"---")
        };
        Self(key.windows(Self::LENGTH).filter(is_plain).collect())
    }

    fn are_in(&self, text: &str) -> bool {
        text.as_bytes().windows(Self::LENGTH).any(|window| self.0.contains(window))
    }
}

/// Ways to write a Secret with a key into a file, good and bad.
fn files(key: &str) -> Vec<(&'static str, String)> {
    let chain = Chain::new(&PKCS_ECDSA_P256_SHA256);
    let good = secret_of("www", &chain.pem(), key);
    let line = key.lines().nth(1).unwrap();
    let one_line = key.replace('\n', "\\n");
    vec![
        ("good", good.clone()),
        ("not indented", good.replace("    ", "")),
        ("a line not indented", good.replace(&format!("    {line}"), line)),
        ("a line too far to the left", good.replace(&format!("    {line}"), &format!(" {line}"))),
        ("a tab", good.replace(&format!("    {line}"), &format!("\t{line}"))),
        ("no block", good.replace("tls.key: |", "tls.key:")),
        ("in data", good.replace("stringData", "data")),
        ("in an unknown field", good.replace("stringData", "stringdata")),
        ("of another type", good.replace("kubernetes.io/tls", "kubernetes.io/basic-auth")),
        ("of no type", good.replace("type: kubernetes.io/tls\n", "")),
        ("a map", good.replace("tls.key: |", "tls.key:\n      pem: |")),
        ("another kind", good.replace("kind: Secret", "kind: ConfigMap")),
        ("a Balancer", good.replace("kind: Secret", "kind: Balancer")),
        ("as its name", good.replace("name: www", &format!("name: \"{one_line}\""))),
        ("as its type", good.replace("kubernetes.io/tls", &format!("\"{one_line}\""))),
        ("as its kind", good.replace("kind: Secret", &format!("kind: \"{one_line}\""))),
        ("as a key", good.replace("stringData:", &format!("stringData:\n  \"{one_line}\": x"))),
        ("an open quote", good.replace("tls.key: |", &format!("tls.key: \"{one_line}"))),
        (
            "twice",
            good.replace("  tls.key: |", &format!("  tls.key: \"{one_line}\"\n  tls.key: |")),
        ),
        ("the key alone", key.to_owned()),
        ("a list", format!("- {}", good.replace('\n', "\n  "))),
        (
            "base64 that is none",
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: www}}\ntype: kubernetes.io/tls\n\
             data: {{tls.crt: aGk=, tls.key: '{line}!'}}\n"
            ),
        ),
    ]
}

#[test]
fn nothing_says_what_is_in_a_key() {
    let directory = Directory::new("certificates-keys");
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem();
    let site = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: app}\nspec:\n  \
                hosts: [www.site.com]\n  tls: {secretName: www, clientCASecret: www}\n  \
                members: [{url: 'http://192.0.2.1/'}]\n";
    std::fs::write(directory.0.join("site.yaml"), site).unwrap();
    let (files, parts) = (files(&key), Parts::of(key.as_bytes()));
    for (at, (_, yaml)) in files.iter().enumerate() {
        std::fs::write(directory.0.join(format!("{at:02}.yaml")), yaml).unwrap();
    }
    let path = directory.0.to_str().unwrap();
    let check = Command::new(GIBBON).args(["check", path]).output().unwrap();
    let said = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(said.lines().count() > files.len() / 2, "{said}");
    let line = said.lines().find(|line| parts.are_in(line));
    assert_eq!(line, None);

    let [listen, secure, admin] = [free(), free(), free()].map(|address| address.to_string());
    let log = std::fs::File::create(directory.0.join("log")).unwrap();
    let gibbon = Command::new(GIBBON)
        .args(["serve", "--files", path, "--log", "trace", "--listen", &listen])
        .args(["--listen-tls", &secure, "--admin", &admin])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let gibbon = Running(gibbon);
    let page = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let seen = Client::new(admin.parse().unwrap()).send(request).read().unwrap();
        (seen.status, seen.text())
    };
    eventually(|| TcpStream::connect(&admin).ok());
    eventually(|| (page("/readyz").0 == 200).then_some(()));
    // Somebody tries a handshake; a new version of a file is read.
    let mut stream = TcpStream::connect(&secure).unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").unwrap();
    std::fs::write(directory.0.join("00.yaml"), &files[1].1).unwrap();
    eventually(|| page("/readyz?verbose").1.contains("00.yaml").then_some(()));
    for path in ["/table", "/readyz?verbose", "/metrics"] {
        let said = page(path).1;
        assert!(!parts.are_in(&said), "{path}: {said}");
    }
    drop(gibbon);
    let log = std::fs::read_to_string(directory.0.join("log")).unwrap();
    assert!(log.contains("00.yaml") && log.contains("TRACE"), "{log}");
    let line = log.lines().find(|line| parts.are_in(line));
    assert_eq!(line, None);
}
