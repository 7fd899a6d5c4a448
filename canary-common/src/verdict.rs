//! Why a packet is not ours to forward, and what the kernel is told then.

/// What the kernel is told. `must_use`: a verdict that is computed and dropped is a bug.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On to the stack (translated or untouched).
    Pass,
    /// Away.
    Drop,
    /// A TCP reset goes back to the client; anything else is dropped.
    Reset,
}

/// Where a translated packet goes on.
#[must_use]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Onward {
    /// To the stack, which routes it.
    #[default]
    Stack,
    /// Straight to the other end of this device (a veth of this host), past the stack.
    Peer(u32),
}

macro_rules! leaves {
    ($($(#[doc = $meaning:literal])+ $name:ident = $label:literal => $verdict:ident,)*) => {
        /// Every reason why a packet is not forwarded. The discriminant is the counter's index, the label is the
        /// metric's, and [`Leave::verdict`] is the only place that decides between the stack and the floor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Leave { $($(#[doc = $meaning])+ $name,)* }

        impl Leave {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in metrics and on the command line.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What it means, for people: its documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_ascii(),)* }
            }

            /// The reason with this number; any other number is the first reason.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                $(if number == Self::$name as u32 {
                    return Self::$name;
                })*
                Self::NotIp
            }

            /// What happens to the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }
        }
    };
}

leaves! {
    /// Neither IPv4 nor IPv6: ARP and the like.
    NotIp = "not-ip" => Pass,
    /// Neither TCP nor UDP nor an ICMP error.
    NotTcpOrUdp = "not-tcp-or-udp" => Pass,
    /// Ends inside a header that decides.
    Truncated = "truncated" => Pass,
    /// More extension headers than are looked at.
    ExtensionHeaders = "extension-headers" => Pass,
    /// A later fragment whose first one was not seen here.
    UnknownFragment = "unknown-fragment" => Pass,
    /// An ICMP error about a flow that is not in the table.
    UnknownIcmp = "unknown-icmp" => Pass,
    /// Nobody's virtual address, and no answer of a known flow: the host's own traffic must keep working.
    NoService = "no-service" => Pass,
    /// No rule of the service matches this client.
    NoRule = "no-rule" => Reset,
    /// The version has no endpoints, and its split says `fail`.
    NoEndpoint = "no-endpoint" => Reset,
    /// The flow's endpoint is gone, and its time to drain is over.
    EndpointGone = "endpoint-gone" => Reset,
    /// RST for a flow that is not known: nobody to tell.
    NoFlow = "no-flow" => Drop,
    /// The first packet of the same flow is being handled on another CPU; its sender will repeat it.
    Claimed = "claimed" => Drop,
    /// The flow table refused an entry.
    TableFull = "table-full" => Drop,
    /// The packet could not be rewritten.
    Rewrite = "rewrite-failed" => Drop,
    /// The client has flows from the same port to these endpoints by another address of theirs.
    PortTaken = "port-taken" => Reset,
    /// A socket whose address is not known yet addresses a service whose rules ask for it: the packets decide.
    UnknownClient = "unknown-client" => Pass,
}
