//! Requests at a fixed rate, however fast answers come. A latency begins when the request was due, so that one that had
//! to wait for a slow one before it counts as slow, too.
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use canary_tests::server::Hello;

/// A load.
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    /// Header lines besides those that every request has.
    pub(crate) headers: &'static str,
    /// Requests a second, of all connections.
    pub(crate) rate: u32,
    pub(crate) connections: u32,
    pub(crate) length: Duration,
}

/// Latencies, sorted, and how many requests failed.
pub(crate) struct Answered {
    latencies: Vec<Duration>,
    pub(crate) failed: u64,
}

impl Answered {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
    pub(crate) fn count(&self) -> f64 {
        self.latencies.len() as f64
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let last = self.count() - 1.0;
        self.latencies.get((last * share).round() as usize).copied().unwrap_or_default()
    }
}

impl Load {
    /// Each connection has a thread and its own share of the times: asleep, they cost nothing.
    pub(crate) fn run(&self) -> Result<Answered> {
        // Threads of this one are in its namespace. A sleep may end a few microseconds late, not fifty.
        rustix::thread::set_current_timer_slack(std::num::NonZero::new(1_000))?;
        let started = Instant::now() + Duration::from_millis(50);
        let every = Duration::from_secs(1) * self.connections / self.rate;
        let results: Vec<Result<Vec<Option<Duration>>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|number| scope.spawn(move || self.one(started + every * number / self.connections, every)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked"))).collect()
        });
        let mut answered = Answered { latencies: Vec::new(), failed: 0 };
        for latency in results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            match latency {
                Some(latency) => answered.latencies.push(latency),
                None => answered.failed += 1,
            }
        }
        ensure!(!answered.latencies.is_empty(), "no request was answered");
        answered.latencies.sort_unstable();
        Ok(answered)
    }

    fn one(&self, first: Instant, every: Duration) -> Result<Vec<Option<Duration>>> {
        let mut latencies = Vec::new();
        let mut stream = connect(self.target)?;
        let request = format!("GET /hello HTTP/1.1\r\nHost: helloworld\r\n{}\r\n", self.headers);
        let mut due = first;
        while due < first + self.length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answered = exchange(&mut stream, &request).is_ok();
            latencies.push(answered.then(|| due.elapsed()));
            if !answered {
                stream = connect(self.target)?;
            }
            due += every;
        }
        Ok(latencies)
    }
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(2)).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, request: &str) -> Result<()> {
    stream.write_all(request.as_bytes())?;
    Hello::receive(stream).map(drop)
}
