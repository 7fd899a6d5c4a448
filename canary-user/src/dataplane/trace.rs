//! Runs the loaded program on a packet of our own, and asks the kernel what the maps cost.
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::{Program, ProgramError, TestRun, TestRunOptions},
};
use canary_common::{
    abi::{self, NONE},
    checksum,
};

use super::{
    DataplaneError, MapMemory, Probe, Trace, address,
    layout::Names,
    maps::{MapFailure, Maps},
    observe::leave_label,
};
use crate::state::Protocol;

/// Runs `canary_trace` on the probe's packet and puts names to what it saw.
pub(super) fn run(ebpf: &Ebpf, maps: &mut Maps, names: &Names, probe: Probe) -> Result<Trace, DataplaneError> {
    const PROGRAM: &str = "canary_trace";
    let refused = |source| DataplaneError::Program { program: PROGRAM, source: Box::new(source) };
    let failed = |source| MapFailure::Map { name: "TRACE", source };
    let frame = frame(probe).ok_or(DataplaneError::Families { from: probe.from, to: probe.to })?;
    let blank = abi::Trace {
        ahead: probe.ahead,
        service: NONE,
        rule: NONE,
        version: NONE,
        endpoint: NONE,
        draw: u64::MAX,
        ..abi::Trace::default()
    };
    maps.trace.set(0, blank, 0).map_err(failed)?;
    let Some(Program::Xdp(program)) = ebpf.program(PROGRAM) else { return Err(refused(ProgramError::NotLoaded)) };
    let mut out = vec![0; frame.len() + 256];
    let options =
        TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), repeat: 1, ..TestRunOptions::default() };
    program.test_run(options).map_err(refused)?;
    let seen = maps.trace.get(&0, 0).map_err(failed)?;
    let endpoint = (seen.endpoint != NONE).then(|| maps.endpoints.get(seen.endpoint)).transpose()?;
    // A known flow was decided before: its version is its endpoint's.
    let version = if seen.version == NONE { endpoint.map_or(NONE, |it| it.version) } else { seen.version };
    let owner = names.versions.get(&version);
    Ok(Trace {
        service: names.services.get(&seen.service).or(owner.map(|(id, _)| id)).cloned(),
        rule: usize::try_from(seen.rule).ok().filter(|_| seen.rule != NONE),
        version: owner.map(|(_, name)| name.clone()),
        endpoint: endpoint.map(|it| address::socket(it.addr_be, it.port_be)),
        draw: (seen.draw != u64::MAX).then_some(seen.draw),
        known: seen.known != 0,
        leave: seen.leave.checked_sub(1).and_then(leave_label),
    })
}

/// The first packet that a client would send: SYN, or an empty datagram. `None` for two address families.
fn frame(probe: Probe) -> Option<Vec<u8>> {
    let transport = transport(probe);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let len = u16::try_from(transport.len()).ok()?;
    match (probe.from.ip(), probe.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, address::number(probe.protocol), 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum::of(&header, 0).to_ne_bytes();
            header.splice(10..12, sum);
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([address::number(probe.protocol), 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => return None,
    }
    frame.extend(transport);
    Some(frame)
}

/// The transport header. Its checksum stays zero: nobody receives the packet.
fn transport(Probe { from, to, protocol, .. }: Probe) -> Vec<u8> {
    let ports = |from: SocketAddr, to: SocketAddr| [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut header = ports(from, to);
    match protocol {
        Protocol::Tcp => header.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]),
        Protocol::Udp => header.extend([0, 8, 0, 0]),
    }
    header
}

/// Memory of every map: `memlock` in the fdinfo of its descriptor.
pub(super) fn memory(ebpf: &Ebpf) -> Result<Vec<MapMemory>, DataplaneError> {
    let mut memory = Vec::new();
    for (name, map) in ebpf.maps() {
        let Some(data) = data(map) else { continue };
        let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(&path)
            .map_err(|source| DataplaneError::Pin { path: path.clone().into(), source })?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        memory.push(MapMemory {
            name: name.into(),
            entries: field("max_entries").and_then(|entries| u32::try_from(entries).ok()).unwrap_or(0),
            bytes: field("memlock").unwrap_or(0),
        });
    }
    memory.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(memory)
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}
