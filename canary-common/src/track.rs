//! Just enough tracking: keyed flows keep their endpoint over changes of a table, and only those that a change concerns
//! are remembered.
//!
//! A keyed split is a table of slots; a flow's hash names its slot, and the slot its endpoint. As long as nothing changes
//! no flow needs an entry anywhere. When a change gives a slot another endpoint, the slot is *tracked*: flows of it are
//! looked for among the records. One that is not recorded belongs to the endpoint before the change (`base`), for
//! whoever has come since has a record; a connection that opens gets the new endpoint (`current`); both are recorded. After the
//! idle time every flow that lives has had a packet, so `base` becomes `current` (*settle*). When no record says another
//! endpoint than `current`, the records have nothing to add (*release*). Another change before that moves `current`
//! only: `base` and `current` are all that is ever needed, however many changes overlap.
//!
//! What the agent, the only writer, owes (each is one store of the word):
//! - `settle` not before the idle time has passed since the slot became tracked or the last record was refused, and since
//!   then the record of every flow that is over may be taken away, but of no other;
//! - `release` not before all programs that were running when it settled have ended, and only while no record of the
//!   slot names another endpoint than `current`. Records that name it may stay.
//!
//! What is promised: a flow whose packets go to an endpoint stays there. One exception, which would cost an entry for every
//! SYN: a SYN that needed no record, repeated by its client after a change, opens the connection anew at the new
//! endpoint; if the answer to the first one was on its way, the connection is reset. The tests search all interleavings of packets
//! on two CPUs with the agent's steps for any other.
//!
//! The idea of tracking only what a change concerns is that of "Load balancing with JET" (Mendelson and others, 2021).

/// No endpoint: the slot's version has none.
pub const NOBODY: u32 = 0x7fff_ffff;
const TRACKED: u64 = 1 << 63;

/// A slot of a keyed split's table, in the one aligned word that a change stores: the endpoint of flows that open now in the
/// low half, that of flows without a record in the 31 bits above, and whether flows must be looked for among the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u64);

/// Where a packet goes, and what has to be remembered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To this endpoint; nothing was looked for, nothing is remembered.
    Straight(u32),
    /// To this endpoint, as the record says.
    Recorded(u32),
    /// A record of this endpoint has to be made first: if another CPU has made one, that one holds; if there is no room,
    /// [`Slot::refused`] says where the packet goes.
    Record(u32),
}

impl Slot {
    /// A slot that has never changed. Endpoints are numbers below [`NOBODY`].
    #[inline(always)]
    #[must_use]
    pub const fn new(endpoint: u32) -> Self {
        Self::with(endpoint, endpoint, 0)
    }

    /// The slot that a map's word stands for.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn with(current: u32, base: u32, tracked: u64) -> Self {
        Self(tracked | ((base & NOBODY) as u64) << 32 | (current & NOBODY) as u64)
    }

    /// The endpoint of flows that open now, or [`NOBODY`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub const fn current(self) -> u32 {
        self.0 as u32
    }

    /// The endpoint of flows that have no record, or [`NOBODY`].
    #[inline(always)]
    #[must_use]
    pub const fn base(self) -> u32 {
        (self.0 >> 32) as u32 & NOBODY
    }

    /// Must flows be looked for among the records?
    #[inline(always)]
    #[must_use]
    pub const fn is_tracked(self) -> bool {
        self.0 & TRACKED != 0
    }

    /// Where a packet goes. `record` is the endpoint that the flow's record names; it is asked for in a tracked slot only.
    /// `opens`: the packet opens a flow for certain (SYN). A datagram does not say whether it is the first: as long
    /// as the slot is not settled, new flows of UDP go where the old ones do.
    #[inline(always)]
    pub fn place(self, opens: bool, record: impl FnOnce() -> Option<u32>) -> Place {
        if !self.is_tracked() {
            return Place::Straight(self.current());
        }
        match record() {
            Some(endpoint) => Place::Recorded(endpoint),
            None if opens || self.base() == NOBODY => Place::Record(self.current()),
            None => Place::Record(self.base()),
        }
    }

    /// Where a packet goes for which there was no room for a record. One from the middle of a connection (`goes_on`) goes to
    /// where the connection's next packets go without a record. `None`: it has to be dropped, and its sender repeats
    /// it; as the first of a flow it would lead there for one packet, if the slot settles just now.
    #[inline(always)]
    #[must_use]
    pub const fn refused(self, goes_on: bool) -> Option<u32> {
        if goes_on && self.base() != NOBODY { Some(self.base()) } else { None }
    }

    /// The agent's step when a table gives the slot an endpoint.
    #[must_use]
    pub const fn change(self, endpoint: u32) -> Self {
        if endpoint == self.current() { self } else { Self::with(endpoint, self.base(), TRACKED) }
    }

    /// The agent's step when every flow that lives has a record.
    #[must_use]
    pub const fn settle(self) -> Self {
        Self::with(self.current(), self.current(), self.0 & TRACKED)
    }

    /// The agent's step when no record names another endpoint than `current`. Changes nothing before it has settled.
    #[must_use]
    pub const fn release(self) -> Self {
        if self.base() == self.current() { Self::new(self.current()) } else { self }
    }
}

#[cfg(test)]
mod tests;
