//! Reads what the kernel and the container runtime write in text.
use serde_json::Value;

use super::Cni;

/// Mount points of one type of file system, from `/proc/PID/mounts`.
pub(super) fn mounts(table: &str, kind: &str) -> Vec<String> {
    let of = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next() == Some(kind)).then(|| unescape(place))
    };
    table.lines().filter_map(of).collect()
}

/// Spaces, tabs, line feeds and backslashes of names are octal numbers in tables of mounts.
fn unescape(name: &str) -> String {
    let pairs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Interfaces of default routes, the preferred one first, of `/proc/PID/net/route` and `ipv6_route`.
pub(super) fn uplinks(v4: &str, v6: &str) -> Vec<String> {
    const UP: u32 = 1; // RTF_UP and RTF_REJECT of linux/route.h
    const REJECT: u32 = 0x200;
    let usable = |flags: &str| u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (UP | REJECT) == UP);
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = fields[..] else { return None };
        usable(flags).then(|| Some((metric.parse::<u32>().ok()?, interface)))?
    });
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, metric, _, _, flags, interface] = fields[..] else { return None };
        let default = destination.bytes().all(|digit| digit == b'0') && interface != "lo" && usable(flags);
        default.then(|| Some((u32::from_str_radix(metric, 16).ok()?, interface)))?
    });
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = (v4.collect(), v6.collect());
    v4.sort_unstable();
    v6.sort_unstable();
    let mut found: Vec<String> = Vec::new();
    for (_, interface) in v4.into_iter().chain(v6) {
        if !found.iter().any(|known| known == interface) {
            found.push(interface.to_owned());
        }
    }
    found
}

/// A configuration of the container runtime: a list of plugins, or one.
pub(super) fn cni(file: &str, text: &str) -> Result<Cni, String> {
    let content: Value = serde_json::from_str(text).map_err(|error| format!("{file}: {error}"))?;
    let kind = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    let plugins: Vec<String> = match content.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.iter().filter_map(kind).collect(),
        None => kind(&content).into_iter().collect(),
    };
    if plugins.is_empty() {
        return Err(format!("{file}: it names no plugin"));
    }
    Ok(Cni { file: file.to_owned(), plugins })
}

/// Effective capabilities, of `/proc/PID/status`.
pub(super) fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Major and minor number of a kernel's release, such as `6.1.0-18-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
