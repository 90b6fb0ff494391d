//! Which IP addresses a plugin's requests may go to: those of the public internet, and what is granted besides.
//!
//! Pure arithmetic on addresses. A name is judged by what it resolves to, never by how it is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which addresses may be connected to that are not of the public internet: those of private networks, of this machine, of
/// the link, of nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateAddresses {
    /// None.
    Refused,
    /// All.
    Allowed,
    /// Those of some networks; at least one.
    Networks(Vec<IpNet>),
}

impl PrivateAddresses {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes leads to the same machine.
        let address = address.to_canonical();
        match self {
            Self::Allowed => true,
            Self::Refused => is_public(address),
            Self::Networks(networks) => is_public(address) || networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// Whether an address is one of the public internet. What IANA's registries of special addresses name is not, and of IPv6
/// nothing is but `2000::/3`, the only part that is given out.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The same of IPv4.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        // This network; private; loopback; multicast, reserved and broadcast.
        [0 | 10 | 127 | 224.., ..]
        // Link-local, where clouds keep their metadata.
        | [169, 254, ..]
        // Protocol assignments; documentation; the relay of 6to4; private.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        // Benchmarks; documentation.
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => true,
        // Shared by providers.
        [100, second, ..] => (64..128).contains(&second),
        // Private.
        [172, second, ..] => (16..32).contains(&second),
        _ => false,
    };
    !is_special
}

/// The same of IPv6.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_given_out = first & 0xe000 == 0x2000;
    let is_special = match first {
        // Protocol assignments, with Teredo, which holds an IPv4 address; documentation.
        0x2001 => second < 0x200 || second == 0xdb8,
        // 6to4, which holds an IPv4 address.
        0x2002 => true,
        // Documentation.
        0x3fff => second < 0x1000,
        _ => false,
    };
    is_given_out && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_allowed() {
        for public in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "2606:4700::1111", "2001:4860::8"]
        {
            assert!(PrivateAddresses::Refused.allows(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:a9fe:a9fe",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!PrivateAddresses::Refused.allows(private.parse().unwrap()), "{private}");
            assert!(PrivateAddresses::Allowed.allows(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn granted_networks_are_allowed_in_either_form_and_nothing_beside_them() {
        let granted = PrivateAddresses::Networks(vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for allowed in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "1.1.1.1"] {
            assert!(granted.allows(allowed.parse().unwrap()), "{allowed}");
        }
        for refused in ["10.2.0.1", "127.0.0.1", "::ffff:10.2.0.1", "::1", "fe80::1", "169.254.169.254"] {
            assert!(!granted.allows(refused.parse().unwrap()), "{refused}");
        }
    }
}
