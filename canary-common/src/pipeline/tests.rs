//! What happens to packets, one connection at a time, on tables in memory.
mod change;
mod direct;
mod express;
mod flows;
mod halves;
mod leftovers;
mod others;
mod reasons;
mod reuse;
mod sockets;

use std::net::SocketAddr;

use crate::{
    abi::{EXACT, FlowKey, KEYED_CLIENT, hop},
    host::{
        HostTables,
        frame::{Build, fault},
        image::{Image, RuleSpec, ServiceSpec, addr},
    },
    packet::{TCP, UDP, tcp},
    pipeline::Way,
    verdict::{Leave, Verdict},
};

const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;
const FIN: u8 = tcp::FIN | tcp::ACK;
const RST: u8 = tcp::RST;

/// Idle times of the test world in ticks.
const TCP_TICKS: u32 = 300;
const UDP_TICKS: u32 = 30;
const TRANSIENT_TICKS: u32 = 10;
/// Where the clock starts.
const START: u32 = 1_000;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The services of the test world answer at `.1` (TCP, exact) and `.2` (UDP, by client), in both families.
fn world() -> HostTables {
    let mut image = Image::new(TCP_TICKS, UDP_TICKS, TRANSIENT_TICKS);
    for (name, vip, net) in [("four", "203.0.113.", "10.1.0."), ("six", "[2001:db8::", "[2001:db8:1::")] {
        let close = if net.starts_with('[') { "]" } else { "" };
        let end = |base: &str, host: u32, port: u32| at(&format!("{base}{host}{close}:{port}"));
        let version = |name: &str, hosts: &[u32]| {
            (name.to_string(), hosts.iter().map(|&host| (end(net, host, 8_080), 1)).collect())
        };
        for (host, protocol, choosing) in [(1, TCP, EXACT), (2, UDP, KEYED_CLIENT)] {
            let base = host * 10;
            image.add(&ServiceSpec {
                name: format!("{name}-{host}"),
                frontends: vec![(end(vip, host, 80), protocol)],
                versions: vec![version("v1", &[base + 1, base + 2, base + 3]), version("v2", &[base + 4])],
                rules: vec![RuleSpec::all(choosing, &[("v1", 90), ("v2", 10)])],
            });
        }
    }
    HostTables::new(image, START)
}

const VIP: &str = "203.0.113.1:80";
const VIP_UDP: &str = "203.0.113.2:80";

/// One side of a conversation through the tables; each method sends a packet and says what came out.
struct Talk<'a> {
    tables: &'a HostTables,
    protocol: u8,
    client: SocketAddr,
    vip: SocketAddr,
}

/// What came out: where a packet went, or why it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    /// From, to.
    Sent(SocketAddr, SocketAddr),
    /// Left alone.
    Left(Leave, Verdict),
}

impl<'a> Talk<'a> {
    fn tcp(tables: &'a HostTables, client: &str) -> Self {
        Self { tables, protocol: TCP, client: at(client), vip: at(VIP) }
    }

    fn udp(tables: &'a HostTables, client: &str) -> Self {
        Self { tables, protocol: UDP, client: at(client), vip: at(VIP_UDP) }
    }

    fn packet(&self, src: SocketAddr, dst: SocketAddr, flags: u8) -> Build {
        let build = if self.protocol == TCP { Build::tcp(src, dst, flags) } else { Build::udp(src, dst) };
        build.with(b"hello")
    }

    /// Sends a packet one way; checks that nothing but one end has changed.
    fn through(&self, src: SocketAddr, dst: SocketAddr, flags: u8, way: Way) -> Out {
        let build = self.packet(src, dst, flags);
        let mut frame = build.frame();
        let (verdict, leave) = self.tables.handle(&mut frame, way);
        if let Some(leave) = leave {
            if verdict != Verdict::Reset {
                assert_eq!(frame, build.frame(), "a packet that is left alone stays as it is");
            }
            return Out::Left(leave, verdict);
        }
        assert_eq!((verdict, fault(&frame)), (Verdict::Pass, None));
        let socket = |addr_at: usize, port_at: usize| {
            let ip = &frame[addr_at..addr_at + if src.is_ipv6() { 16 } else { 4 }];
            let ip = match <[u8; 4]>::try_from(ip) {
                Ok(four) => four.into(),
                Err(_) => <[u8; 16]>::try_from(ip).unwrap().into(),
            };
            SocketAddr::new(ip, crate::host::frame::word(&frame, port_at))
        };
        let (from, to) =
            if src.is_ipv6() { (socket(22, 54), socket(38, 56)) } else { (socket(26, 34), socket(30, 36)) };
        assert_eq!(frame, self.packet(from, to, flags).frame());
        Out::Sent(from, to)
    }

    /// The client sends; the endpoint that gets it, or the reason.
    fn send(&self, flags: u8) -> Result<SocketAddr, Leave> {
        match self.through(self.client, self.vip, flags, Way::In) {
            Out::Sent(from, to) => {
                assert_eq!(from, self.client, "a client's source stays");
                Ok(to)
            }
            Out::Left(leave, _) => Err(leave),
        }
    }

    /// `endpoint` answers; the answer must come from the virtual address.
    fn answer(&self, endpoint: SocketAddr, flags: u8) {
        assert_eq!(self.through(endpoint, self.client, flags, Way::In), Out::Sent(self.vip, self.client));
    }

    /// SYN, SYN-ACK, ACK: the endpoint.
    fn open(&self) -> SocketAddr {
        let endpoint = self.send(SYN).unwrap();
        self.answer(endpoint, SYN | ACK);
        assert_eq!(self.send(ACK), Ok(endpoint));
        endpoint
    }

    fn key(&self) -> FlowKey {
        FlowKey {
            src_be: addr(self.client.ip()),
            dst_be: addr(self.vip.ip()),
            src_port_be: self.client.port().to_be(),
            dst_port_be: self.vip.port().to_be(),
            protocol: self.protocol,
            pad: 0,
            zero: 0,
        }
    }

    /// Entries in the tables of established and of other flows.
    fn entries(&self) -> (usize, usize) {
        (self.tables.memory().flows.len(), self.tables.memory().transient.len())
    }

    /// Draws of the first split.
    fn draws(&self) -> u64 {
        self.tables.memory().draws.values().sum()
    }
}

/// Another client for each number.
fn client(number: u32) -> String {
    format!("10.0.{}.{}:{}", number / 250 % 250, number % 250 + 1, 40_000 + number / 62_500)
}
