//! One line of the access log, in Istio's names and their order.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::Entry;
use crate::{proxy::telemetry::Ended, telemetry::time};

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) entry: Box<Entry>,
    pub(super) ended: Ended,
    pub(super) lasted: Duration,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let entry = &self.entry;
        let destination = entry.destination.as_ref();
        let mut line = to.serialize_struct("Line", 18)?;
        line.serialize_field("start_time", &moment(entry.start))?;
        line.serialize_field("method", &entry.method)?;
        line.serialize_field("path", &entry.path)?;
        line.serialize_field("protocol", entry.protocol)?;
        line.serialize_field("response_code", &self.ended.code)?;
        line.serialize_field("response_flags", &self.ended.flags.to_string())?;
        line.serialize_field("bytes_received", &self.received)?;
        line.serialize_field("bytes_sent", &self.sent)?;
        line.serialize_field("duration", &u64::try_from(self.lasted.as_millis()).unwrap_or(u64::MAX))?;
        line.serialize_field("x_forwarded_for", &entry.forwarded_for)?;
        line.serialize_field("user_agent", &entry.user_agent)?;
        line.serialize_field("request_id", &entry.request_id)?;
        line.serialize_field("authority", &entry.authority)?;
        line.serialize_field("upstream_host", &entry.endpoint)?;
        line.serialize_field("upstream_cluster", &destination.map(|it| &it.cluster))?;
        line.serialize_field("downstream_local_address", &entry.frontend)?;
        line.serialize_field("downstream_remote_address", &entry.client)?;
        line.serialize_field("route_name", &destination.map(|it| &it.rule))?;
        line.end()
    }
}

/// `2026-08-01T12:00:00.123Z`.
fn moment(at: SystemTime) -> String {
    // As for `time::now`: no clock is before 1970.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = time::rfc3339(since.as_secs());
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), since.subsec_millis())
}
