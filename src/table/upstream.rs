//! How members are spoken to: by which protocol, and whom TLS trusts.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::tls::SecretId;

/// What is spoken with a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// TLS, and HTTP/1.1.
    Https1,
    /// TLS, and HTTP/2 where the member agrees to it, else HTTP/1.1.
    Https,
    /// TLS, and HTTP/2.
    H2,
    /// HTTP/2 by prior knowledge.
    H2c,
}

impl Protocol {
    /// The name in the resource, logs and pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP1",
            Self::Https1 => "HTTPS1",
            Self::Https => "HTTPS",
            Self::H2 => "H2",
            Self::H2c => "H2C",
        }
    }

    /// Whether it is spoken over TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https1 | Self::Https | Self::H2)
    }

    /// Whether a connection can be handed over to another protocol (`Upgrade`), as HTTP/2 never is.
    #[must_use]
    pub const fn can_switch(self) -> bool {
        !matches!(self, Self::H2 | Self::H2c)
    }

    /// What the `appProtocol` of a Service's port stands for; nothing if it is another's.
    #[must_use]
    pub fn of_port(app_protocol: &str) -> Option<Self> {
        match app_protocol.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Some(Self::Http1),
            "kubernetes.io/wss" => Some(Self::Https1),
            "https" => Some(Self::Https),
            "grpc" | "h2c" | "kubernetes.io/h2c" => Some(Self::H2c),
            _ => None,
        }
    }
}

/// Whom TLS with members trusts, and what is shown to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The Secret of the authorities; none: the system's.
    pub authorities: Option<SecretId>,
    /// The Secret of the certificate that members see.
    pub certificate: Option<SecretId>,
    /// Whether anybody is trusted.
    pub anybody: bool,
}

impl Trust {
    /// Whether it is what everybody has who asks for nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a rule asks of TLS with its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom it trusts.
    pub trust: Trust,
    /// The name that members' certificates must be for, if it is not their own.
    pub server_name: Option<ServerName<'static>>,
}

/// What handshakes with members need, once for each set of protocols that is offered. None is like
/// another.
pub struct ClientConfigs {
    number: u64,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

impl ClientConfigs {
    /// Of a configuration whose protocols do not matter.
    #[must_use]
    pub fn new(config: &ClientConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
        }
    }

    /// A number that no other of this process has.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// What a protocol's handshakes need.
    #[must_use]
    pub const fn of(&self, protocol: Protocol) -> &Arc<ClientConfig> {
        match protocol {
            Protocol::Http1 | Protocol::Https1 => &self.http1,
            Protocol::H2 | Protocol::H2c => &self.http2,
            Protocol::Https => &self.either,
        }
    }
}

impl PartialEq for ClientConfigs {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for ClientConfigs {}

impl Hash for ClientConfigs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl fmt::Debug for ClientConfigs {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientConfigs({})", self.number)
    }
}

/// Where the handshakes of a member come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trusted {
    /// The system's authorities are trusted.
    #[default]
    System,
    /// What the rule asks for.
    Own(Arc<ClientConfigs>),
    /// What the rule asks for cannot be had: there is none, and nothing else will do.
    Nobody,
}

/// TLS with one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberTls {
    /// The name that its certificate must be for.
    pub name: ServerName<'static>,
    /// Whom it is trusted by.
    pub trusted: Trusted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_says_of_its_protocol_is_known() {
        for (text, protocol) in [
            ("kubernetes.io/h2c", Some(Protocol::H2c)),
            ("kubernetes.io/ws", Some(Protocol::Http1)),
            ("http", Some(Protocol::Http1)),
            ("HTTPS", Some(Protocol::Https)),
            ("grpc", Some(Protocol::H2c)),
            ("mysql", None),
            ("", None),
        ] {
            assert_eq!(Protocol::of_port(text), protocol, "{text}");
        }
    }
}
