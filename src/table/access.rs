//! Who may come in, by address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks; an IPv4 address written as IPv6 counts as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// These networks.
    #[must_use]
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads a network, or an address as the network of that one.
///
/// # Errors
/// Says what a network looks like.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(network) if !has_padded_length(text) => Ok(network.trunc()),
        _ => Err(format!(
            "`{text}` is no network: write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
        )),
    }
}

/// Whether it is written as `10.0.0.0/08`, which the schema refuses: some take it for octal.
fn has_padded_length(text: &str) -> bool {
    text.split_once('/').is_some_and(|(_, length)| length.len() > 1 && length.starts_with('0'))
}

/// Whom a rule serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Nobody else, unless empty.
    pub allow: Networks,
    /// Not these, even if allowed.
    pub deny: Networks,
}

impl Access {
    /// Whether a client with this address is served.
    #[must_use]
    pub fn permits(&self, client: IpAddr) -> bool {
        !self.deny.contain(client) && (self.allow.is_empty() || self.allow.contain(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|n| parse_network(n).unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_lists_everybody_comes_in() {
        assert!(Access::default().permits(ip("203.0.113.9")));
    }

    #[test]
    fn an_allow_list_shuts_out_the_rest_and_deny_wins() {
        let access = Access { allow: networks(&["10.0.0.0/8"]), deny: networks(&["10.1.0.0/16"]) };
        assert!(access.permits(ip("10.2.0.1")));
        assert!(!access.permits(ip("10.1.0.1")));
        assert!(!access.permits(ip("192.0.2.1")));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_client() {
        let access = Access { deny: networks(&["10.0.0.7"]), ..Access::default() };
        assert!(!access.permits(ip("::ffff:10.0.0.7")));
    }

    #[test]
    fn what_is_no_network_says_what_one_looks_like() {
        for text in ["10.0.0.0/33", "10.0.0.0/08", "2001:db8::/032"] {
            let error = parse_network(text).unwrap_err();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }
}
