//! Internet checksums (RFC 1071) and their incremental update (RFC 1624, equation 3).

/// Folds a 32-bit one's-complement sum to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    let twice = (once + (once >> 16)) as u16;
    twice
}

/// One's-complement difference `to - from` of a 16-bit field, to be added to a sum.
#[inline(always)]
#[must_use]
pub const fn diff16(from: u16, to: u16) -> u32 {
    (!from) as u32 + to as u32
}

/// The same of a 32-bit field. At most 2¹⁸, so that sixteen of them can be added.
#[inline(always)]
#[must_use]
pub const fn diff32(from: u32, to: u32) -> u32 {
    (!from & 0xffff) + (!from >> 16) + (to & 0xffff) + (to >> 16)
}

/// The same of an address: an IPv4 one differs in the last word only, and equal words add nothing.
#[inline(always)]
#[must_use]
pub const fn diff_addr(from: &crate::abi::Addr, to: &crate::abi::Addr) -> u32 {
    diff32(from[0], to[0]) + diff32(from[1], to[1]) + diff32(from[2], to[2]) + diff32(from[3], to[3])
}

/// RFC 1624: the checksum after the fields it covers changed by `diff`.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, diff: u32) -> u16 {
    !fold((!checksum) as u32 + diff)
}

/// The checksum of `bytes` that start at an even offset, `sum` being what is known already.
#[must_use]
pub fn of(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = u64::from(sum);
    for pair in bytes.chunks(2) {
        let word = match *pair {
            [a, b] => [a, b],
            [a] => [a, 0],
            _ => [0, 0],
        };
        sum += u64::from(u16::from_ne_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded just above")]
    let folded = sum as u16;
    !folded
}

#[cfg(test)]
mod tests;
