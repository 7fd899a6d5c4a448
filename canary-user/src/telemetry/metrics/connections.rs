//! What became of the connections that sockets have made.
use super::{CARRIED, CONNECTIONS, HANDSHAKE, OPEN, Page, RETRANSMITS, RTT};
use crate::dataplane::{Connections, Counters};

/// All series of connections; none if they are not counted.
pub(super) fn all(page: &mut Page, counters: &Counters) {
    for ((id, version), of) in &counters.connections {
        let service = id.to_string();
        let labels = [("service", service.as_str()), ("version", version.as_str())];
        let with = |name, value| [labels[0], labels[1], (name, value)];
        let events = [("begun", of.begun), ("established", of.established), ("failed", of.failed), ("ended", of.ended)];
        for (event, count) in events {
            page.count(CONNECTIONS, &with("event", event), count);
        }
        page.count(OPEN, &with("state", "active"), of.open().saturating_sub(of.draining));
        page.count(OPEN, &with("state", "draining"), of.draining);
        page.count(RETRANSMITS, &labels, of.retransmits);
        page.count(CARRIED, &with("direction", "in"), of.bytes_in);
        page.count(CARRIED, &with("direction", "out"), of.bytes_out);
        handshakes(page, &labels, of);
        page.part(RTT, "_sum", &labels, &seconds(of.rtt_micros));
        page.part(RTT, "_count", &labels, &of.ended.to_string());
    }
}

fn handshakes(page: &mut Page, labels: &[(&str, &str); 2], of: &Connections) {
    let mut all = 0;
    for (end, count) in &of.handshakes {
        all += count;
        let end = end.map_or_else(|| "+Inf".to_owned(), seconds);
        page.part(HANDSHAKE, "_bucket", &[labels[0], labels[1], ("le", &end)], &all.to_string());
    }
    page.part(HANDSHAKE, "_sum", labels, &seconds(of.handshake_micros));
    page.part(HANDSHAKE, "_count", labels, &all.to_string());
}

/// Microseconds, written as seconds.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
