//! Which fields a head has, found out in one pass. Most heads have few of those that Gibbon looks at,
//! and to ask for each of them in turn costs more than all else that is done with a head.

use http::HeaderMap;
use http::header::HeaderName;

use super::headers;

/// The kinds of fields that a head may have. What is removed later is still counted, and nothing of
/// a client's or member's is added: who is not in here is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u32);

impl Fields {
    /// `Connection`.
    pub const CONNECTION: Self = Self(1);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(1 << 1);
    /// `TE`.
    pub const TE: Self = Self(1 << 2);
    /// `Keep-Alive`.
    pub const KEEP_ALIVE: Self = Self(1 << 3);
    /// `Transfer-Encoding`.
    pub const CODING: Self = Self(1 << 4);
    /// What else belongs to one connection.
    pub const HOP: Self = Self(1 << 5);
    /// `Content-Length`.
    pub const LENGTH: Self = Self(1 << 6);
    /// `Content-Type`.
    pub const TYPE: Self = Self(1 << 7);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 8);
    /// `Cookie`.
    pub const COOKIE: Self = Self(1 << 9);
    /// `CDN-Loop`.
    pub const LOOP: Self = Self(1 << 10);
    /// `X-Request-Id`.
    pub const ID: Self = Self(1 << 11);
    /// What only a trusted peer may say of who asks, however it is spelt.
    pub const HEARSAY: Self = Self(1 << 12);
    /// `X-Client-Cert-Subject`, however it is spelt.
    pub const SUBJECT: Self = Self(1 << 13);
    /// What members say of their own address.
    pub const ADDRESS: Self = Self(1 << 14);
    /// Some field comes more than once.
    pub const REPEATED: Self = Self(1 << 15);
    /// What says how long the body is.
    pub const FRAMING: Self = Self(Self::CODING.0 | Self::LENGTH.0);
    /// All that belongs to one connection only.
    pub const OF_THE_CONNECTION: Self = Self(
        Self::CONNECTION.0
            | Self::UPGRADE.0
            | Self::TE.0
            | Self::KEEP_ALIVE.0
            | Self::CODING.0
            | Self::HOP.0,
    );

    /// Of a head.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let repeated = if headers.len() > headers.keys_len() { Self::REPEATED.0 } else { 0 };
        Self(headers.keys().fold(repeated, |fields, name| fields | Self::of_name(name).0))
    }

    fn of_name(name: &HeaderName) -> Self {
        let name = name.as_str();
        match name.len() {
            2 if name == "te" => Self::TE,
            3 if name == "uri" => Self::ADDRESS,
            4 if name == "link" => Self::ADDRESS,
            6 if name == "cookie" => Self::COOKIE,
            6 if name == "expect" => Self::EXPECT,
            7 if name == "upgrade" => Self::UPGRADE,
            7 if name == "refresh" => Self::ADDRESS,
            8 if name == "location" => Self::ADDRESS,
            8 if name == "cdn-loop" => Self::LOOP,
            9 if name == "forwarded" => Self::HEARSAY,
            10 if name == "connection" => Self::CONNECTION,
            10 if name == "keep-alive" => Self::KEEP_ALIVE,
            10 if name == "set-cookie" => Self::ADDRESS,
            11 if name == "destination" => Self::ADDRESS,
            12 if name == "content-type" => Self::TYPE,
            12 if name == headers::X_REQUEST_ID => Self::ID,
            14 if name == "content-length" => Self::LENGTH,
            14 if name == "http2-settings" => Self::HOP,
            16 if name == "content-location" => Self::ADDRESS,
            16 if name == "proxy-connection" => Self::HOP,
            17 if name == "transfer-encoding" => Self::CODING,
            18 if name == "proxy-authenticate" => Self::HOP,
            _ if !name.starts_with('x') => Self(0),
            _ if headers::is_hearsay(name) => Self::HEARSAY,
            _ if headers::is_subject(name) => Self::SUBJECT,
            _ => Self(0),
        }
    }

    /// Whether one of these may be there.
    #[must_use]
    pub const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}
