//! canary's kernel programs: entry points only. What happens to a packet is in `canary_common::pipeline`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the programs are documented; what their attributes generate around them is not")]
#![expect(unreachable_pub, reason = "programs are found by name in the object")]
#![expect(clippy::needless_pass_by_value, reason = "the signature of a program")]

mod call;
mod connections;
mod context;
mod maps;
mod sockets;
mod steps;
mod tables;

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::{bpf_redirect, bpf_redirect_peer},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use canary_common::{
    pipeline::{Express, Way, balance, express, headers},
    rewrite::{Frame, reset},
    verdict::{Leave, Onward, Verdict},
};

use crate::{
    context::{TcFrame, XdpFrame},
    maps::{count_leave, trace},
    tables::{DRY, LIVE, Maps},
};

/// Handles a packet: where it goes on. If it is left alone, counts the reason; a reset is written into the frame.
#[inline(always)]
fn run<F: Frame>(frame: &mut F, way: Way) -> Result<Onward, Verdict> {
    match express(frame, &Maps::<LIVE>::express(), way) {
        Express::Done(onward) => return Ok(onward),
        Express::NotOurs => {
            count_leave(Leave::NoService);
            return Err(Leave::NoService.verdict());
        }
        Express::Long => {}
    }
    let leave = match start::<F, LIVE>(frame) {
        Ok(maps) => match balance(frame, &maps, way, maps.headers()) {
            Ok(onward) => return Ok(onward),
            Err(leave) => {
                if leave.verdict() == Verdict::Reset && reset(frame, maps.headers()).is_some() {
                    count_leave(leave);
                    return Err(Verdict::Reset);
                }
                leave
            }
        },
        Err(leave) => leave,
    };
    count_leave(leave);
    Err(if leave.verdict() == Verdict::Pass { Verdict::Pass } else { Verdict::Drop })
}

/// Parses, and parks the headers where the verifier forgets which way they were found.
#[inline(always)]
fn start<F: Frame, const MODE: u8>(frame: &mut F) -> Result<Maps<MODE>, Leave> {
    let headers = headers(frame)?;
    Maps::<MODE>::new().ok_or(Leave::Rewrite)?.keep(headers);
    Maps::<MODE>::new().ok_or(Leave::Rewrite) // Looked up anew: LLVM must not see through it.
}

/// XDP at ingress.
#[xdp]
pub fn canary_xdp(ctx: XdpContext) -> u32 {
    match run(&mut XdpFrame::new(&ctx), Way::In) {
        Ok(_) | Err(Verdict::Pass) => xdp_action::XDP_PASS, // Frames of XDP have no peers.
        Err(Verdict::Drop) => xdp_action::XDP_DROP,
        // Not `XDP_TX`: a veth whose other end has no XDP program of its own takes such frames and never delivers them,
        // while it delivers redirected ones.
        // SAFETY: `ctx` is a valid context; the frame leaves by the interface that it came in by.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a verdict is a small number")]
        Err(Verdict::Reset) => unsafe { bpf_redirect((*ctx.ctx).ingress_ifindex, 0) as u32 },
    }
}

/// A frame to this host (`PACKET_HOST`) without a tag, which the kernel has put aside: the host's own way would take such
/// frames off their tag, pass them on by a bridge, or throw them away.
#[inline(always)]
fn is_for_us(ctx: &TcContext) -> bool {
    // SAFETY: `skb` is a valid context.
    unsafe { (*ctx.skb.skb).pkt_type == 0 && (*ctx.skb.skb).vlan_present == 0 }
}

#[inline(always)]
fn tc(ctx: &TcContext, way: Way) -> i32 {
    match run(&mut TcFrame::new(ctx), way) {
        Ok(Onward::Peer(_)) if !is_for_us(ctx) => TC_ACT_UNSPEC,
        Ok(Onward::Stack) | Err(Verdict::Pass) => TC_ACT_UNSPEC, // Goes on to the next program, and to the stack after the last.
        // SAFETY: a helper without pointers.
        #[expect(clippy::cast_possible_truncation, reason = "a verdict is a small number")]
        Ok(Onward::Peer(device)) => unsafe { bpf_redirect_peer(device, 0) as i32 },
        Err(Verdict::Drop) => TC_ACT_SHOT,
        Err(Verdict::Reset) => {
            // A reset goes back: out where its cause came in, or, when an answer was about to leave here, as if the
            // client had sent it, up to the stack, which knows the way to the endpoint.
            let flags = if way == Way::Out { u64::from(BPF_F_INGRESS) } else { 0 };
            // SAFETY: `skb` is a valid context.
            #[expect(clippy::cast_possible_truncation, reason = "a verdict is a small number")]
            unsafe {
                bpf_redirect((*ctx.skb.skb).ifindex, flags) as i32
            }
        }
    }
}

/// TC at ingress.
#[classifier]
pub fn canary_in(ctx: TcContext) -> i32 {
    tc(&ctx, Way::In)
}

/// TC at egress: answers that were not translated where they came in.
#[classifier]
pub fn canary_out(ctx: TcContext) -> i32 {
    tc(&ctx, Way::Out)
}

/// `canary trace`: what would happen to this packet. Never attached; run by the agent on packets that it makes.
#[xdp]
pub fn canary_trace(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let handled = start::<_, DRY>(&mut frame).and_then(|maps| balance(&mut frame, &maps, Way::In, maps.headers()));
    let leave = match handled {
        Ok(_) => 0,
        Err(leave) => 1 + leave as u32,
    };
    trace(|trace| trace.leave = leave);
    xdp_action::XDP_PASS
}

// Never linked in on purpose: a program that can panic does not load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// No helper that the programs call is restricted to GPL-compatible ones.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
