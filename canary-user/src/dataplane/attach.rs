//! Links between programs and interfaces: pinned, so that they outlive the agent, and replaced in place by the next one.
use std::path::{Path, PathBuf};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};

use super::{
    Attach, Attached, DataplaneError, Hook,
    cgroup::{self, Also},
    clsact, device,
};

/// An interface with our programs.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// What was asked for, and how it was done.
    pub(super) attached: Attached,
    /// Index of the interface, or number of the cgroup: one that is deleted and made again has another.
    index: u64,
    /// Names of the pins that hold the programs there.
    pins: Vec<String>,
}

/// One program at one place of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    XdpNative,
    XdpGeneric,
    In,
    Out,
    ClsactIn,
    ClsactOut,
}

impl Place {
    const ALL: [Self; 6] = [Self::XdpNative, Self::XdpGeneric, Self::In, Self::Out, Self::ClsactIn, Self::ClsactOut];

    const fn label(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::In => "tc-in",
            Self::Out => "tc-out",
            Self::ClsactIn => "clsact-in",
            Self::ClsactOut => "clsact-out",
        }
    }

    /// The same side, by a clsact filter.
    const fn without_tcx(self) -> Self {
        match self {
            Self::Out | Self::ClsactOut => Self::ClsactOut,
            _ => Self::ClsactIn,
        }
    }

    const fn side(self) -> TcAttachType {
        match self {
            Self::Out | Self::ClsactOut => TcAttachType::Egress,
            _ => TcAttachType::Ingress,
        }
    }
}

/// A bpffs refuses dots in names, and interfaces have them (`eth0.100`).
fn pin_name(place: Place, interface: &str) -> String {
    format!("{}-{}", place.label(), interface.replace('%', "%25").replace('.', "%2E"))
}

/// Attaches to exactly the `wanted` interfaces: what each became, in their order. New places first, then what is no longer
/// wanted goes. What an interface has stays when it cannot be attached to as it is wanted. `also`: what a cgroup gets
/// besides. `standing` is what an earlier
/// call attached, which is left alone, and then what is attached now.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    links: &Path,
    wanted: &[Attach],
    also: Also,
    standing: &mut Vec<Standing>,
) -> Vec<Result<Attached, DataplaneError>> {
    let mut had = std::mem::take(standing);
    let mut keep: Vec<String> = Vec::new();
    let mut became = Vec::new();
    for attach in wanted {
        let index = number(attach);
        let done = had.iter().position(|it| Some(it.index) == index && it.attached.attach == *attach);
        let one = match done {
            Some(at) => Ok(had.swap_remove(at)),
            None => one(ebpf, links, attach, also),
        };
        became.push(one.map(|one| {
            keep.extend_from_slice(&one.pins);
            standing.push(one.clone());
            one.attached
        }));
    }
    for attach in wanted.iter().zip(&became).filter(|(_, became)| became.is_err()).map(|(attach, _)| attach) {
        match attach.hook {
            Hook::Cgroup => keep.extend(cgroup::pin_names(&attach.interface, also)),
            _ => keep.extend(Place::ALL.map(|place| pin_name(place, &attach.interface))),
        }
    }
    let gone = pins(links).into_iter().filter(|(name, _)| !keep.contains(name));
    became.extend(gone.filter_map(|(name, path)| unlink(&name, &path).err()).map(Err));
    became
}

fn one(ebpf: &mut Ebpf, links: &Path, attach: &Attach, also: Also) -> Result<Standing, DataplaneError> {
    let interface = attach.interface.as_str();
    let missing = || match attach.hook {
        Hook::Cgroup => DataplaneError::NoCgroup { path: interface.into() },
        _ => DataplaneError::NoInterface { interface: interface.into() },
    };
    let failed = |source: ProgramError| DataplaneError::Attach { attach: attach.clone(), source: Box::new(source) };
    let index = number(attach).ok_or_else(missing)?;
    if attach.hook == Hook::Cgroup {
        let adopted = cgroup::attach(ebpf, links, interface, also).map_err(failed)?;
        let attached = Attached { attach: attach.clone(), mode: "sockets".into(), adopted, warning: None };
        return Ok(Standing { attached, index, pins: cgroup::pin_names(interface, also) });
    }
    let kind = device::hardware(interface).ok_or_else(missing)?;
    if !device::ETHERNET.contains(&kind) {
        return Err(DataplaneError::NotEthernet { interface: interface.into(), kind });
    }
    let mut pins = Vec::new();
    let (_, answers) = tc(ebpf, links, attach, Place::Out, &mut pins).map_err(failed)?;
    let (mode, adopted) = match attach.hook {
        Hook::Xdp => xdp(ebpf, links, interface, &mut pins).map_err(failed)?,
        _ => tc(ebpf, links, attach, Place::In, &mut pins).map_err(failed)?,
    };
    let warning = another(attach, links).or_else(|| warning(attach));
    let attached = Attached { attach: attach.clone(), mode: mode.into(), adopted: adopted && answers, warning };
    Ok(Standing { attached, index, pins })
}

/// Index of an interface, or number of a cgroup.
fn number(attach: &Attach) -> Option<u64> {
    match attach.hook {
        Hook::Cgroup => cgroup::id(&attach.interface),
        _ => device::index(&attach.interface).map(u64::from),
    }
}

/// Another canary at the same interface: whichever program comes first takes the flows of services that both know.
fn another(attach: &Attach, links: &Path) -> Option<String> {
    let (_, programs) = SchedClassifier::query_tcx(&attach.interface, TcAttachType::Egress).ok()?;
    let canaries = programs.iter().filter(|program| program.name_as_str() == Some("canary_out")).count();
    (canaries > 1).then(|| {
        // Other pin directories are usually beside ours.
        let pins = pin_directory(links);
        let name = pin_name(Place::Out, &attach.interface);
        let beside = std::fs::read_dir(pins.parent()?).ok()?.flatten().map(|entry| entry.path());
        let other = beside.filter(|path| path != pins).find(|path| {
            let layouts = std::fs::read_dir(path).into_iter().flatten().flatten();
            layouts.map(|layout| layout.path().join("links")).any(|links| links.join(&name).exists())
        });
        let whose = other.map_or_else(|| "DIR".to_owned(), |path| path.display().to_string());
        Some(format!(
            "another canary is attached to {}: whichever comes first takes the flows of services that both know; \
             remove the one that is not wanted with `canary detach --pin {whose}`",
            attach.interface
        ))
    })?
}

/// XDP on veth meets checksums that the sender left to hardware which is not there; see `docs/adr/0004`.
fn warning(attach: &Attach) -> Option<String> {
    (attach.hook == Hook::Xdp && device::driver(&attach.interface).as_deref() == Some("veth")).then(|| {
        format!(
            "{} is a veth: its peer leaves checksums unfinished, and XDP cannot tell; \
             turn that off at the peer, and let it take resets from XDP (`ethtool -K PEER tx off gro on`), \
             or attach with tc:{0}",
            attach.interface
        )
    })
}

/// Native where the driver has it, else generic.
fn xdp(
    ebpf: &mut Ebpf,
    links: &Path,
    interface: &str,
    keep: &mut Vec<String>,
) -> Result<(&'static str, bool), ProgramError> {
    let program: &mut Xdp = program(ebpf, "canary_xdp")?;
    for (place, mode) in [(Place::XdpNative, "native"), (Place::XdpGeneric, "generic")] {
        let path = links.join(pin_name(place, interface));
        if let Some(link) = adopt(&path)
            && let Ok(link) = XdpLink::try_from(link)
            && let Ok(id) = program.attach_to_link(link)
        {
            drop(program.take_link(id)); // Pinned already: the pin holds it.
            keep.push(pin_name(place, interface));
            return Ok((mode, true));
        }
    }
    let mut refused = None;
    for (place, mode, label) in
        [(Place::XdpNative, XdpMode::Driver, "native"), (Place::XdpGeneric, XdpMode::Skb, "generic")]
    {
        let pinned = program.attach(interface, mode).and_then(|id| {
            let link = FdLink::try_from(program.take_link(id)?).map_err(other)?;
            pin(link, &links.join(pin_name(place, interface)))
        });
        match pinned {
            Ok(()) => {
                keep.push(pin_name(place, interface));
                return Ok((label, false));
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(ProgramError::NotLoaded))
}

/// TCX where the kernel has it, else a clsact filter. Returns which, and whether an earlier agent's was taken over.
fn tc(
    ebpf: &mut Ebpf,
    links: &Path,
    attach: &Attach,
    place: Place,
    keep: &mut Vec<String>,
) -> Result<(&'static str, bool), ProgramError> {
    let interface = attach.interface.as_str();
    let name = if place == Place::Out { "canary_out" } else { "canary_in" };
    let program: &mut SchedClassifier = program(ebpf, name)?;
    if attach.hook != Hook::Clsact {
        match tcx(program, &links.join(pin_name(place, interface)), interface, place) {
            Ok(adopted) => {
                keep.push(pin_name(place, interface));
                return Ok(("tcx", adopted));
            }
            // What a kernel without TCX answers to the unknown kind of link.
            Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let mark = pin_name(place.without_tcx(), interface);
    let adopted = clsact::attach(program, interface, place.side(), &links.join(&mark), pin_directory(links))?;
    keep.push(mark);
    Ok(("clsact", adopted))
}

/// First in the order at ingress, so that what comes after sees translated packets, and last at egress.
fn tcx(program: &mut SchedClassifier, path: &Path, interface: &str, place: Place) -> Result<bool, ProgramError> {
    if let Some(link) = adopt(path)
        && let Ok(link) = SchedClassifierLink::try_from(link)
        && let Ok(id) = program.attach_to_link(link)
    {
        drop(program.take_link(id)); // Pinned already: the pin holds it.
        return Ok(true);
    }
    let order = if place == Place::Out { LinkOrder::last() } else { LinkOrder::first() };
    let id = program.attach_with_options(interface, place.side(), TcAttachOptions::TcxOrder(order))?;
    pin(FdLink::try_from(program.take_link(id)?).map_err(other)?, path)?;
    Ok(false)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// The link behind a pin, if there is one.
fn adopt(path: &Path) -> Option<FdLink> {
    PinnedLink::from_pin(path).ok().map(FdLink::from)
}

/// Pins a link in place of one whose interface is gone.
fn pin(link: FdLink, path: &Path) -> Result<(), ProgramError> {
    let _ = std::fs::remove_file(path);
    link.pin(path).map(drop).map_err(other)
}

pub(super) fn other(error: impl std::error::Error + Send + Sync + 'static) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

/// Pins in a directory of links: file name and path.
pub(super) fn pins(links: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(links).into_iter().flatten().flatten();
    let mut pins: Vec<_> =
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    pins.sort();
    pins
}

/// Detaches what a pin in the directory of links stands for.
pub(super) fn unlink(name: &str, path: &Path) -> Result<(), DataplaneError> {
    for place in [Place::ClsactIn, Place::ClsactOut] {
        if let Some(interface) = name.strip_prefix(place.label()).and_then(|rest| rest.strip_prefix('-')) {
            let links = path.parent().unwrap_or(path);
            clsact::detach(&interface.replace("%2E", ".").replace("%25", "%"), place.side(), pin_directory(links));
        }
    }
    unpin(path)
}

/// Removes filters of ours that no mark stands for, at every interface of this network namespace. Returns where their
/// marks would be.
pub(super) fn remove_unmarked(pin: &Path, links: &Path) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for interface in device::names() {
        for place in [Place::ClsactIn, Place::ClsactOut] {
            let mark = links.join(pin_name(place, &interface));
            if !mark.exists() && clsact::detach_ours(&interface, place.side(), pin) {
                removed.push(mark);
            }
        }
    }
    removed
}

/// The directory of all pins, whatever their layout: links lie in PIN/vN/links.
fn pin_directory(links: &Path) -> &Path {
    links.ancestors().nth(2).unwrap_or(links)
}

/// Removes a pin; its link goes with it, unless somebody else holds it.
pub(super) fn unpin(path: &Path) -> Result<(), DataplaneError> {
    std::fs::remove_file(path).map_err(|source| DataplaneError::Pin { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_have_no_dots_and_no_two_interfaces_share_one() {
        let names: std::collections::BTreeSet<String> = ["eth0", "eth0.100", "eth0%2E100", "a-b", "100%"]
            .iter()
            .flat_map(|interface| [Place::In, Place::Out].map(|place| pin_name(place, interface)))
            .collect();
        assert_eq!(names.len(), 10);
        assert!(names.iter().all(|name| !name.contains('.')), "{names:?}");
    }
}
