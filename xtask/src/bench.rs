//! `cargo xtask bench`: nanoseconds per packet of canary's program beside the yardstick's reference programs, and
//! ([`http`]) microseconds per request beside other balancers.
mod http;

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::{process, setup};

/// How to measure.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Interleaved rounds; the table shows the median of them
    #[arg(long, default_value_t = 11)]
    rounds: u32,
    /// Packets of a program in one round
    #[arg(long, default_value_t = 400_000)]
    repeat: u32,
    /// CPU to measure on
    #[arg(long, default_value_t = 0)]
    cpu: u32,
    /// Room for so many flows in every flow table
    #[arg(long, default_value_t = 2_000_000)]
    flows: u32,
    /// Only cases whose name holds this, such as `tcp_1k`
    #[arg(long)]
    only: Option<String>,
    /// `table` or `json`
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Microseconds of CPU per request and connection, latencies and memory: canary in the kernel and with its proxy
    /// beside nftables, HAProxy, nginx and Envoy on the same work
    Http(http::Options),
    /// Nanoseconds of a process's `connect()`, with and without the programs of a cgroup
    Connect {
        /// Interleaved rounds; the table shows the median of them
        #[arg(long, default_value_t = 15)]
        rounds: u32,
    },
    /// Memory of an agent that follows a large cluster, and what each change costs it
    Kube {
        /// Services, with ten endpoints each; a tenth of them has routes
        #[arg(long, default_value_t = 5_000)]
        services: u32,
        /// Pods
        #[arg(long, default_value_t = 10_000)]
        pods: u32,
    },
}

/// One program in one case: what a packet costs net of the harness (`r0`), and beside `r2` in the same round.
#[derive(Debug, PartialEq)]
struct Figure {
    case: String,
    program: String,
    net_ns: f64,
    beside_r2: Option<f64>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        Some(What::Http(options)) => return http::run(options),
        Some(What::Connect { rounds }) => return connect(*rounds),
        Some(What::Kube { services, pods }) => return kube(*services, *pods),
        None => {}
    }
    let environment = setup::run()?;
    let clang = clang()?;
    let release = setup::build(&environment, "canary (release)", &["--bin", "provision", "--release"])?;
    let out = setup::target_directory().join("yardstick");
    std::fs::create_dir_all(&out)?;
    setup::step("build the yardstick", || {
        let mut make = environment.command("make");
        make.args(["--quiet", "-C", "yardstick"]).arg(format!("OUT={}", out.display())).arg(format!("CLANG={clang}"));
        process::run(&mut make)?;
        Ok("ready".to_owned())
    })?;
    let pins = Pins(format!("/sys/fs/bpf/canary-bench-{}", std::process::id()));
    for (name, keyed) in [("exact", false), ("keyed", true)] {
        let mut provision = environment.command(&release.join("provision").to_string_lossy());
        provision.arg(pins.of(name)).args(["--flows", &options.flows.to_string()]);
        if keyed {
            provision.arg("--keyed");
        }
        process::run(&mut provision)?;
    }
    let csv = out.join("bench.csv");
    let mut bench = environment.command(&out.join("bench").to_string_lossy());
    bench.arg(out.join("ref.bpf.o")).arg(out.join("bench.bpf.o"));
    bench.args([options.rounds.to_string(), options.repeat.to_string(), options.cpu.to_string()]).arg(&csv);
    for name in ["exact", "keyed"] {
        bench.arg(format!("canary-{name}=@{}/v1/programs/canary_xdp", pins.of(name)));
    }
    bench.env("LRU", options.flows.to_string()).stdout(std::process::Stdio::null());
    if let Some(only) = &options.only {
        bench.env("ONLY", only);
    }
    process::run(&mut bench)?;
    let figures = figures(&std::fs::read_to_string(&csv).with_context(|| csv.display().to_string())?)?;
    print(&figures, options.output == "json");
    Ok(())
}

/// Measures what it costs a process to connect.
fn connect(rounds: u32) -> Result<()> {
    let environment = setup::run()?;
    let release =
        setup::build(&environment, "canary, load and pods (release)", &["-p", "canary-user", "--bins", "--release"])?;
    let mut connects = environment.command(&release.join("connects").to_string_lossy());
    connects.args(["--rounds", &rounds.to_string()]);
    process::run_for_results(&mut connects)
}

/// Measures what a large cluster costs an agent.
fn kube(services: u32, pods: u32) -> Result<()> {
    let environment = setup::run()?;
    let release =
        setup::build(&environment, "canary and the cluster (release)", &["-p", "canary-user", "--bins", "--release"])?;
    let mut clusters = environment.command(&release.join("clusters").to_string_lossy());
    clusters.args(["--services", &services.to_string(), "--pods", &pods.to_string()]);
    process::run_for_results(&mut clusters)
}

/// Pins of the programs under measurement, removed at the end.
struct Pins(String);

impl Pins {
    fn of(&self, name: &str) -> String {
        format!("{}-{name}", self.0)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for name in ["exact", "keyed"] {
            let _ = std::fs::remove_dir_all(Path::new(&self.of(name)));
        }
    }
}

/// A clang that is there, or Debian's.
fn clang() -> Result<String> {
    let found = || {
        let names = ["clang".to_owned()].into_iter().chain((14..=22).rev().map(|version| format!("clang-{version}")));
        names.into_iter().find(|name| process::output(Command::new(name).arg("--version")).is_some())
    };
    let headers = Path::new("/usr/include/bpf/bpf.h");
    if let Some(clang) = found().filter(|_| headers.exists()) {
        return Ok(clang);
    }
    setup::step("clang, make and libbpf for the yardstick", || {
        let mut install = Command::new("apt-get");
        process::run(install.args(["install", "-y", "-qq", "clang", "make", "gcc", "libbpf-dev"]))?;
        Ok("installed".to_owned())
    })?;
    found().context("clang is not there: install clang, make, gcc and libbpf's headers")
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Reads the harness's lines: round, case, program, flows, repeat, ns, … Rounds below 0 warm up.
fn figures(csv: &str) -> Result<Vec<Figure>> {
    let mut rounds: BTreeMap<(String, i32), BTreeMap<String, f64>> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [round, case, program, _, _, ns, ..] = fields.as_slice() else { bail!("`{line}` has too few fields") };
        let round: i32 = round.parse().with_context(|| line.to_owned())?;
        let ns: f64 = ns.parse().with_context(|| line.to_owned())?;
        if round >= 0 {
            rounds.entry(((*case).into(), round)).or_default().insert((*program).into(), ns);
        }
    }
    let mut samples: BTreeMap<(String, String), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for ((case, _), programs) in &rounds {
        let Some(harness) = programs.get("r0") else { continue };
        let reference = programs.get("r2.new").or_else(|| programs.get("r2")).map(|ns| ns - harness);
        for (program, ns) in programs.iter().filter(|(program, _)| *program != "r0") {
            let (net, ratio) = samples.entry((case.clone(), program.clone())).or_default();
            net.push(ns - harness);
            ratio.extend(reference.filter(|it| *it > 0.0).map(|it| (ns - harness) / it));
        }
    }
    let figure = |((case, program), (mut net, mut ratio)): ((String, String), (Vec<f64>, Vec<f64>))| {
        Some(Figure { case, program, net_ns: median(&mut net)?, beside_r2: median(&mut ratio) })
    };
    Ok(samples.into_iter().filter_map(figure).collect())
}

fn print(figures: &[Figure], json: bool) {
    if json {
        let line = |it: &Figure| {
            let ratio = it.beside_r2.map_or("null".to_owned(), |ratio| format!("{ratio:.2}"));
            format!(
                r#"  {{"case": "{}", "program": "{}", "net_ns": {:.1}, "beside_r2": {ratio}}}"#,
                it.case, it.program, it.net_ns
            )
        };
        println!("[\n{}\n]", figures.iter().map(line).collect::<Vec<_>>().join(",\n"));
        return;
    }
    println!("{:<12} {:<13} {:>7} {:>10}", "case", "program", "net ns", "beside r2");
    for it in figures {
        let ratio = it.beside_r2.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        println!("{:<12} {:<13} {:>7.0} {ratio:>10}", it.case, it.program, it.net_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_of_rounds_net_of_the_harness() {
        let csv = "round,case,prog,flows,repeat,dur_ns,rest\n\
                   -1,tcp_1,r0,1,9,99,0\n\
                   0,tcp_1,r0,1,9,30,0\n0,tcp_1,r2,1,9,90,0\n0,tcp_1,canary-exact,1,9,105,0\n\
                   1,tcp_1,r0,1,9,32,0\n1,tcp_1,r2,1,9,92,0\n1,tcp_1,canary-exact,1,9,98,0\n\
                   2,tcp_1,r0,1,9,30,0\n2,tcp_1,r2,1,9,90,0\n2,tcp_1,canary-exact,1,9,96,0\n";
        let figures = figures(csv).unwrap();
        let figure = |program: &str, net_ns, beside_r2| Figure {
            case: "tcp_1".into(),
            program: program.into(),
            net_ns,
            beside_r2: Some(beside_r2),
        };
        assert_eq!(figures, [figure("canary-exact", 66.0, 1.1), figure("r2", 60.0, 1.0)]);
    }
}
