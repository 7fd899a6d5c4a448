//! Addresses between the maps' words and Rust's types.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) use canary_common::host::image::addr as words;
use canary_common::{
    abi::{Addr, ServiceKey},
    packet::{TCP, UDP},
};
use ipnet::IpNet;

use crate::state::{Frontend, Protocol};

/// The address of words, IPv4 unmapped.
pub(crate) fn addr(words: Addr) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    let v6 = Ipv6Addr::from(octets);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// Address and port of a map's fields.
pub(crate) fn socket(words: Addr, port_be: u16) -> SocketAddr {
    SocketAddr::new(addr(words), u16::from_be(port_be))
}

/// IP protocol number.
pub(crate) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// Protocol of a number; everything that is not UDP was TCP.
pub(crate) const fn protocol(number: u8) -> Protocol {
    if number == UDP { Protocol::Udp } else { Protocol::Tcp }
}

/// Key of a frontend, for packets or for sockets.
pub(crate) fn key(frontend: &Frontend, of: u8) -> ServiceKey {
    ServiceKey {
        addr_be: words(frontend.addr),
        port_be: frontend.port.to_be(),
        protocol: number(frontend.protocol),
        of,
        zero: 0,
    }
}

/// Frontend of a key.
pub(crate) fn frontend(key: &ServiceKey) -> Frontend {
    Frontend { addr: addr(key.addr_be), port: u16::from_be(key.port_be), protocol: protocol(key.protocol) }
}

/// Network and mask of a client network.
pub(crate) fn network(net: &IpNet) -> (Addr, Addr) {
    let mask = match net {
        IpNet::V4(v4) => {
            let mask = Ipv4Addr::from_bits(v4.netmask().to_bits()).to_ipv6_mapped().to_bits();
            Ipv6Addr::from_bits(mask | u128::MAX << 32)
        }
        IpNet::V6(v6) => v6.netmask(),
    };
    (words(net.network()), words(IpAddr::V6(mask)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.0.0.1", "255.255.255.255", "fd00::1", "::", "2001:db8::ffff:1:2"] {
            let it: IpAddr = text.parse().unwrap();
            assert_eq!(addr(words(it)), it, "{text}");
        }
    }

    #[test]
    fn a_network_holds_its_hosts_only() {
        for (net, inside, outside) in [
            ("10.1.0.0/16", "10.1.2.3", "10.2.0.1"),
            ("fd00:1::/32", "fd00:1::7", "fd00:2::7"),
            ("0.0.0.0/0", "1.2.3.4", "fd00::1"),
        ] {
            let (net_be, mask_be) = network(&net.parse().unwrap());
            let holds = |client: &str| {
                words(client.parse().unwrap())
                    .iter()
                    .zip(mask_be)
                    .zip(net_be)
                    .all(|((word, mask), net)| word & mask == net)
            };
            assert!(holds(inside), "{net} holds {inside}");
            assert!(!holds(outside), "{net} does not hold {outside}");
        }
    }
}
