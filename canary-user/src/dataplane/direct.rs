//! Which devices of this host lead straight to endpoints, for clients' packets that go past the stack.
//!
//! A veth (or netkit) whose other end is in another network namespace takes a packet there without routing it here
//! (`bpf_redirect_peer`). The host's own routes say which device an endpoint is behind. What a device leads to may change
//! while nobody looks: so the programs follow what is found here for a limited time, which each pass prolongs.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    mem::offset_of,
    net::IpAddr,
    time::{Duration, Instant},
};

use canary_common::abi::{self, Endpoint};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::{
    address,
    layout::ticks,
    maps::{MapFailure, Maps},
    tables::Tables,
};

/// How long what a pass found is followed, in seconds: agents make a pass every 30 s and at every change of links and routes.
const LASTS: u32 = 64;
/// Groups of linux/rtnetlink.h that are told what matters here: links, routes, and rules, of IPv4 and of IPv6.
const GROUPS: [u32; 5] = [1, 7, 11, 8, 19];
/// Room for the beginning of a message that is not read.
const MESSAGE: usize = 1 << 10;
const TOGETHER: Duration = Duration::from_millis(20);
/// What was found is asked for again after this time, also if nobody has told of a change.
const AGAIN: Duration = Duration::from_secs(30);

/// What the kernel says about links and routes.
pub(super) struct Direct {
    asked: Socket,
    /// Is told about changes.
    told: Socket,
    /// Devices whose other end is in another network namespace.
    far: BTreeSet<u32>,
    /// The device of each address, if it is one of these.
    known: HashMap<IpAddr, Option<u32>>,
    since: Instant,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("far", &self.far).field("known", &self.known).finish_non_exhaustive()
    }
}

impl Direct {
    pub(super) fn open() -> io::Result<Self> {
        let asked = Socket::new(NETLINK_ROUTE)?;
        asked.connect(&SocketAddr::new(0, 0))?;
        let mut told = Socket::new(NETLINK_ROUTE)?;
        told.bind_auto()?;
        GROUPS.iter().try_for_each(|group| told.add_membership(*group))?;
        told.set_non_blocking(true)?;
        let mut direct = Self { asked, told, far: BTreeSet::new(), known: HashMap::new(), since: Instant::now() };
        direct.far = direct.far()?;
        Ok(direct)
    }

    /// Writes the devices of the endpoints in `tables`, and until when they count.
    pub(super) fn refresh(&mut self, maps: &mut Maps, tables: &Tables, now: u32) -> Result<(), DirectError> {
        if self.has_changed() || self.since.elapsed() >= AGAIN {
            self.known.clear();
            self.far = self.far()?;
            self.since = Instant::now();
        }
        let serving: BTreeMap<u32, &Endpoint> = tables
            .endpoints
            .iter()
            .filter(|(_, endpoint)| Tables::endpoint_in_use(endpoint, now))
            .map(|(&slot, endpoint)| (slot, endpoint))
            .collect();
        let addresses: BTreeSet<IpAddr> = serving.values().map(|endpoint| address::addr(endpoint.addr_be)).collect();
        self.known.retain(|address, _| addresses.contains(address));
        for (slot, endpoint) in serving {
            let device = self.device(address::addr(endpoint.addr_be))?;
            let hop = device.map_or(0, |device| abi::hop(device, endpoint.generation));
            if maps.hops.get(slot)? != hop {
                maps.hops.publish(slot, 0, hop)?;
            }
        }
        let until = now.saturating_add(ticks(LASTS));
        maps.settings.publish(0, offset_of!(abi::Settings, direct_until), until)?;
        Ok(())
    }

    /// Whether links or routes have changed since the last call.
    fn has_changed(&self) -> bool {
        let mut changed = false;
        loop {
            match self.told.recv(&mut Vec::with_capacity(MESSAGE), 0) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changed,
                // ENOBUFS: there was too much to tell.
                Err(_) => return true,
            }
        }
    }

    fn device(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        if self.far.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.known.get(&address) {
            return Ok(*known);
        }
        let device = self.route(address)?.filter(|device| self.far.contains(device));
        self.known.insert(address, device);
        Ok(device)
    }

    /// The device by which the host would send to an address; `None` when it would not.
    fn route(&self, address: IpAddr) -> io::Result<Option<u32>> {
        let mut wanted = RouteMessage::default();
        (wanted.header.address_family, wanted.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        wanted.attributes.push(RouteAttribute::Destination(address.into()));
        let mut answers = Vec::new();
        match ask(&self.asked, RouteNetlinkMessage::GetRoute(wanted), NLM_F_REQUEST, &mut answers) {
            // There is no way: none at all, a route that refuses, or no such address family. The stack will say.
            Err(error) if error.raw_os_error().is_some() => return Ok(None),
            asked => asked?,
        }
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(device) => Some(*device),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    /// Devices whose other end is in another network namespace.
    fn far(&self) -> io::Result<BTreeSet<u32>> {
        let mut links = Vec::new();
        ask(&self.asked, RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_REQUEST | NLM_F_DUMP, &mut links)?;
        let is_far = |link: &LinkMessage| {
            let elsewhere = |it: &LinkAttribute| matches!(it, LinkAttribute::LinkNetNsId(_));
            let pair = |it: &LinkInfo| matches!(it, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit));
            let paired = |it: &LinkAttribute| matches!(it, LinkAttribute::LinkInfo(all) if all.iter().any(pair));
            link.attributes.iter().any(elsewhere) && link.attributes.iter().any(paired)
        };
        Ok(links
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) if is_far(&link) => Some(link.header.index),
                _ => None,
            })
            .collect())
    }
}

/// Asks the kernel, and puts what it answers into `answers`.
pub(super) fn ask(
    socket: &Socket,
    question: RouteNetlinkMessage,
    flags: u16,
    answers: &mut Vec<RouteNetlinkMessage>,
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            let length = rest.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
            rest = rest.get(length.max(1).next_multiple_of(4)..).unwrap_or_default();
            // A link of a kind that cannot be read is none of those that matter.
            let Ok(message) = read else { continue };
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) => return error.code.map_or(Ok(()), |_| Err(error.to_io())),
                NetlinkPayload::Done(_) => return Ok(()),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// Why it is not known what leads straight to endpoints.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectError {
    /// The kernel does not say.
    #[error("cannot ask for links and routes: {0}")]
    Ask(#[from] io::Error),
    /// A map cannot be written.
    #[error(transparent)]
    Map(#[from] MapFailure),
}

/// Is told when links or routes of this host change.
pub struct Changes(TokioSocket);

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Begins to listen, in the network namespace of the calling thread. To be called inside a runtime.
    ///
    /// # Errors
    /// When there is no such socket to have.
    pub fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        GROUPS.iter().try_for_each(|group| socket.socket_mut().add_membership(*group))?;
        Ok(Self(socket))
    }

    /// Waits for changes, and a moment longer: mostly they come together.
    ///
    /// # Errors
    /// When the socket is of no use any more.
    pub async fn changed(&mut self) -> io::Result<()> {
        match self.0.recv(&mut Vec::with_capacity(MESSAGE)).await {
            // There was too much to tell.
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error),
            _ => tokio::time::sleep(TOGETHER).await,
        }
        while self.0.socket_ref().recv(&mut Vec::with_capacity(MESSAGE), 0).is_ok() {}
        Ok(())
    }
}
