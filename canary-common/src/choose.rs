//! Which version, and which endpoint of it, a new flow gets: pure functions over the words of the maps.
//!
//! *Exact*: one counter per split numbers the new flows; a tree of two-way jittered splits turns the number into a version
//! in closed form. In a two-way split with weight `w` of `T` on the lighter side, its k-th flow sits at a keyed-random
//! place of the k-th stratum `[ceil(k·T/w), ceil((k+1)·T/w))`, so that each prefix is within one flow of the exact share
//! and a periodic client neither always nor never meets the canary. What is left of the number goes down the tree.
//! Since `ceil(k·T/w) <= n` exactly when `k <= n·w/T`, `k = floor(n·w/T)` needs no search (`docs/adr/0002`).
//!
//! *Keyed*: a hash of the flow or the client, scaled to the sum of the weights, falls into one version's range.
use crate::abi::{Addr, FlowKey, Node};

const MIX_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_B: u64 = 0xd6e8_feb8_6659_fd93;
const MIX_C: u64 = 0xbf58_476d_1ce4_e5b9;

/// A node's seed as it is stored: multiplied once when the tree is built, not at every draw.
#[inline(always)]
#[must_use]
pub const fn node_seed(seed: u64) -> u64 {
    seed.wrapping_mul(MIX_B)
}

/// 32 bits that look random, the same for the same seed and stratum.
#[inline(always)]
const fn keyed(node_seed: u64, stratum: u64) -> u64 {
    let mut x = stratum.wrapping_mul(MIX_A).wrapping_add(node_seed);
    x ^= x >> 32;
    x = x.wrapping_mul(MIX_B);
    x ^= x >> 29;
    x.wrapping_mul(MIX_C) >> 32
}

/// One two-way split: the child that flow `n` goes to, and its number there.
///
/// Exact for every `n` and all weights of 32 bits: from 2³² on, whole periods are taken off first so that no product
/// exceeds 64 bits. A node whose `light` or `total` is 0 is never built; it would send everything to the heavier side.
#[inline(always)]
#[must_use]
pub const fn two_way(node: &Node, n: u64) -> (u32, u64) {
    let (total, light) = (node.total as u64, node.light as u64);
    if total == 0 || light == 0 {
        return (node.to_heavy, n);
    }
    let (periods, rest) = if n >> 32 == 0 { (0, n) } else { (n / total, n % total) };
    let k = rest * light / total;
    let scaled = k * total;
    let remainder = scaled % light;
    let start = scaled / light + (remainder != 0) as u64;
    // The stratum's end without another division: remainders of the next multiple follow from this one's.
    let next = remainder + node.remainder as u64;
    let end_carry = if next == 0 {
        0
    } else if next <= light {
        1
    } else {
        2
    };
    let width = node.quotient as u64 + end_carry - (remainder != 0) as u64;
    let stratum = periods * light + k;
    let place = start + ((keyed(node.seed, stratum) * width) >> 32);
    if rest == place { (node.to_light, stratum) } else { (node.to_heavy, n - stratum - (rest > place) as u64) }
}

/// Scales a 32-bit hash to `0..n` without a division.
#[inline(always)]
#[must_use]
pub const fn scale(hash: u32, n: u32) -> u32 {
    ((hash as u64 * n as u64) >> 32) as u32
}

#[inline(always)]
const fn absorb(state: u64, word: u64) -> u64 {
    let x = (state ^ word).wrapping_mul(MIX_B);
    x ^ (x >> 32)
}

#[inline(always)]
const fn finish(state: u64) -> u64 {
    let x = (state ^ (state >> 29)).wrapping_mul(MIX_C);
    x ^ (x >> 32)
}

#[inline(always)]
const fn absorb_addr(state: u64, addr: &Addr) -> u64 {
    let high = (addr[0] as u64) << 32 | addr[1] as u64;
    let low = (addr[2] as u64) << 32 | addr[3] as u64;
    absorb(absorb(state, high), low)
}

/// Hash of a client's address. The high half chooses the version, the low half the endpoint.
#[inline(always)]
#[must_use]
pub const fn hash_client(client: &Addr, salt: u64) -> u64 {
    finish(absorb_addr(salt ^ MIX_A, client))
}

/// Hash of a 5-tuple, likewise.
#[inline(always)]
#[must_use]
pub const fn hash_flow(key: &FlowKey, salt: u64) -> u64 {
    let ends = absorb_addr(absorb_addr(salt ^ MIX_A, &key.src_be), &key.dst_be);
    let ports = (key.src_port_be as u64) << 24 | (key.dst_port_be as u64) << 8 | key.protocol as u64;
    finish(absorb(ends, ports))
}

/// The half of a keyed hash that chooses the version.
#[inline(always)]
#[must_use]
pub const fn version_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The half of a keyed hash that chooses the endpoint.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
pub const fn endpoint_half(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests;
