//! Who may come in, by address.

use std::net::{IpAddr, Ipv4Addr};

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

/// Addresses that nobody may have as a member. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Barred {
    local: bool,
    networks: Networks,
}

impl Barred {
    /// What leads back into the machine or the link (loopback, link-local, unspecified, multicast,
    /// broadcast), and these.
    #[must_use]
    pub const fn local_and(networks: Networks) -> Self {
        Self { local: true, networks }
    }

    /// Whether an address is barred, in whatever form of IPv6 it is written.
    #[must_use]
    pub fn bars(&self, address: IpAddr) -> bool {
        let written = address.to_canonical();
        let is_barred = |ip| self.networks.contain(ip) || (self.local && is_local(ip));
        is_barred(written) || embedded(written).is_some_and(|ip| is_barred(IpAddr::V4(ip)))
    }
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
        }
    }
}

/// The IPv4 address that a translator or relay finds in an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC
/// 3056), and the old IPv4-compatible form.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = address else { return None };
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
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

    #[test]
    fn what_leads_back_into_the_machine_is_barred_in_every_form() {
        let barred = Barred::local_and(Networks::new(vec![parse_network("10.9.0.0/16").unwrap()]));
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.9.1.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::10.9.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "10.9.255.255",
        ] {
            assert!(barred.bars(address.parse().unwrap()), "{address}");
            assert!(!Barred::default().bars(address.parse().unwrap()), "{address}");
        }
        for address in ["10.8.0.1", "203.0.113.9", "2001:db8::1", "64:ff9b::8.8.8.8", "fd00::1"] {
            assert!(!barred.bars(address.parse().unwrap()), "{address}");
        }
    }

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
