//! A load and what it cost.
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::focused::{MEMBER, STRANGER};
use serde::Serialize;

use crate::{
    paced,
    topology::{Awake, Topology},
};

/// Connections at a time.
pub(crate) const CONNECTIONS: u32 = 32;

/// What is asked for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// 90:10 by weights, connections kept
    SplitKept,
    /// 90:10 by weights, a connection for each request
    SplitClosed,
    /// The same at a fixed rate, for the latencies
    SplitPaced,
    /// The blog's focused canary, connections kept
    FocusedKept,
    /// The blog's focused canary, a connection for each request
    FocusedClosed,
    /// The same at a fixed rate, for the latencies
    FocusedPaced,
}

impl Work {
    // Those by weights first: canary changes its routes between.
    pub(crate) const ALL: [Self; 6] = [
        Self::SplitKept,
        Self::SplitClosed,
        Self::SplitPaced,
        Self::FocusedKept,
        Self::FocusedClosed,
        Self::FocusedPaced,
    ];

    pub(crate) fn is_focused(self) -> bool {
        matches!(self, Self::FocusedKept | Self::FocusedClosed | Self::FocusedPaced)
    }

    fn closes(self) -> bool {
        matches!(self, Self::SplitClosed | Self::FocusedClosed)
    }
}

/// What one load showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) system: &'static str,
    pub(crate) work: Work,
    pub(crate) requests: f64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// CPU of the whole machine, both CPUs, in microseconds for each request.
    pub(crate) cpu_us: f64,
    /// CPU of the system's own processes, in microseconds for each request.
    pub(crate) process_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Memory of its processes before the first load.
    pub(crate) memory_mb: f64,
}

/// Asks as fast as answers come.
pub(crate) fn closed(topology: &Topology, target: SocketAddr, work: Work, length: Duration) -> Result<Sample> {
    let (connections, seconds) = (format!("-c{CONNECTIONS}"), format!("-d{}s", length.as_secs().max(1)));
    let mut arguments = vec!["-t1", &connections, &seconds, "--latency", "--timeout", "2s"];
    if work.closes() {
        arguments.extend(["-H", "Connection: close"]);
    }
    let member = MEMBER.trim_end();
    if work.is_focused() {
        arguments.extend(["-H", member]);
    }
    let url = format!("http://{target}/hello");
    arguments.push(&url);
    let (before, started) = (busy()?, Instant::now());
    let said = topology.story.client.call("wrk", &arguments)?;
    let (cpu, seconds) = (busy()? - before, started.elapsed().as_secs_f64());
    let requests: f64 = word(&said, "requests in", -1).context("requests")?.parse()?;
    let errors = said.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    let errors = errors.flat_map(|line| line.split([' ', ',']).filter_map(|it| it.parse::<u64>().ok())).sum();
    ensure!(requests > 0.0, "no request was answered: {said}");
    let sample = Sample {
        system: "",
        work,
        requests,
        errors,
        seconds,
        cpu_us: cpu / requests * 1e6,
        process_us: 0.0,
        p50_us: microseconds(percentile(&said, "50%").context("p50")?)?,
        p99_us: microseconds(percentile(&said, "99%").context("p99")?)?,
        memory_mb: 0.0,
    };
    Ok(sample)
}

/// Asks at a fixed rate. A CPU that is kept awake is always busy, so nothing is said of CPU time here.
pub(crate) fn open(topology: &Topology, target: SocketAddr, work: Work, rate: u32, length: Duration) -> Result<Sample> {
    let _awake = Awake::new()?;
    let headers = if work.is_focused() { MEMBER } else { "" };
    let load = paced::Load { target, headers, rate, connections: CONNECTIONS, length };
    let started = Instant::now();
    let answered = topology.story.client.run(|| load.run())??;
    let percentile = |share: f64| answered.percentile(share).as_secs_f64() * 1e6;
    Ok(Sample {
        system: "",
        work,
        requests: answered.count(),
        errors: answered.failed,
        seconds: started.elapsed().as_secs_f64(),
        cpu_us: f64::NAN,
        process_us: 0.0,
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        memory_mb: 0.0,
    })
}

/// Asks some times on connections of their own: whether who answers is whom the work asks for.
pub(crate) fn check(topology: &Topology, target: SocketAddr, work: Work, balances: bool) -> Result<()> {
    const TIMES: usize = 60;
    let canary = |headers: &str| -> Result<usize> {
        let mut count = 0;
        for _ in 0..TIMES {
            count += usize::from(topology.story.client.run(|| ask(target, headers))??.contains("version: v2"));
        }
        Ok(count)
    };
    // Random choices of 1 in 10 miss 60 times in a row once in 560 tries.
    let (member, stranger) = (canary(MEMBER)?, canary(STRANGER)?);
    let right = match work.is_focused() {
        _ if !balances => member + stranger == 0,
        true => member > 0 && member < TIMES && stranger == 0,
        false => member + stranger > 0 && member + stranger < TIMES,
    };
    ensure!(right, "{work:?}: v2 answers {member} of {TIMES} with the cookie, {stranger} without");
    Ok(())
}

/// One request on a connection of its own.
pub(crate) fn ask(target: SocketAddr, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(1)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET /hello HTTP/1.1\r\nHost: helloworld\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "answer {answer:?}");
    Ok(answer)
}

/// Seconds that all CPUs worked so far, without what the hypervisor took.
fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let all = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = all.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal (proc(5)), in hundredths of a second.
    let work = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<f64>();
    Ok(work / 100.0)
}

/// The word beside `mark` in what wrk says: behind it, or before it.
fn word<'a>(text: &'a str, mark: &str, beside: i8) -> Option<&'a str> {
    let (before, behind) = text.split_once(mark)?;
    if beside < 0 { before.split_whitespace().next_back() } else { behind.split_whitespace().next() }
}

/// A percentile. Other percentages come before them.
fn percentile<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    word(text.split_once("Latency Distribution")?.1, mark, 1)
}

fn microseconds(text: &str) -> Result<f64> {
    let unit = text.find(|it: char| it.is_ascii_alphabetic()).with_context(|| format!("no unit: `{text}`"))?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => anyhow::bail!("unit `{unit}`"),
    };
    Ok(number.parse::<f64>().with_context(|| text.to_owned())? * factor)
}

#[cfg(test)]
mod tests {
    use super::{microseconds, percentile, word};

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "    Latency   827us  120us  2.1ms  62.50%\n    Req/Sec  19.2k  1.1k  21k  99%\n  Latency Distribution\n     50%  816.00us\n     99%    1.47ms\n  70498 requests in 2.00s, 9.0MB read\n";
        assert_eq!(word(said, "requests in", -1), Some("70498"));
        assert!((microseconds(percentile(said, "50%").unwrap()).unwrap() - 816.0).abs() < 1e-6);
        assert!((microseconds(percentile(said, "99%").unwrap()).unwrap() - 1470.0).abs() < 1e-6);
        assert!(microseconds("12").is_err());
    }
}
