//! What is known of sockets and of the processes that have them.
use super::{Addr, Plain};

map_type! {
    /// What a socket addresses, or what answers it.
    #[repr(align(8))]
    pub struct SocketKey {
        /// Number of the socket, for its life.
        pub cookie: u64,
        /// Virtual address, or address of an endpoint.
        pub addr_be: Addr,
        /// Port.
        pub port_be: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// 0: what the socket addresses; 1: what answers it.
        pub answers: u8,
        /// Zero.
        pub zero: u32,
    }
}
map_type! {
    /// Of a virtual address the endpoint that was chosen; of an endpoint that address. Aligned as [`FlowKey`].
    #[repr(align(8))]
    pub struct Peer {
        /// Its address.
        pub addr_be: Addr,
        /// Its port.
        pub port_be: u16,
        /// 1: the endpoint is the proxy.
        pub proxied: u16,
        /// Endpoint slot.
        pub endpoint: u32,
        /// The endpoint's generation when it was chosen.
        pub generation: u32,
        /// Zero.
        pub zero: u32,
    }
}
map_type! {
    /// The addresses of the pod whose cgroup it is; all zero: it has none of that family.
    pub struct Client {
        /// IPv4, mapped.
        pub v4_be: Addr,
        /// IPv6.
        pub v6_be: Addr,
    }
}
