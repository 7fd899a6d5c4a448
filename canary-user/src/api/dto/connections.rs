//! TCP connections of sockets.
use serde::{Deserialize, Serialize};

/// What became of the TCP connections that sockets have made to a version, since the agent's maps were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsV1 {
    /// Established and not ended.
    pub open: u64,
    /// Those of them that lead to endpoints which take no new ones.
    pub draining: u64,
    /// Established.
    pub established: u64,
    /// Ended before they were established.
    pub failed: u64,
    /// Mean time that it took to be established, in microseconds; absent without any.
    pub handshake_micros: Option<u64>,
    /// Mean round-trip time of those that have ended, in microseconds; absent without any.
    pub rtt_micros: Option<u64>,
    /// Segments that clients had to send again, of those that have ended.
    pub retransmits: u64,
    /// Bytes from clients, of those that have ended.
    pub bytes_in: u64,
    /// Bytes to clients, of those that have ended.
    pub bytes_out: u64,
}
