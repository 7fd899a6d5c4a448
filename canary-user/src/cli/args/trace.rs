//! Arguments of `canary trace`.
use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::Output;

/// Protocol of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// `canary trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Client. Without one an HTTP request is of nobody whom a rule names.
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_client, required_unless_present = "http")]
    pub from: Option<SocketAddr>,
    /// Virtual address.
    #[arg(long, value_name = "VIP:PORT")]
    pub to: SocketAddr,
    /// Protocol.
    #[arg(long, value_enum, default_value_t = Proto::Tcp, conflicts_with = "http")]
    pub proto: Proto,
    /// Trace so many flows, one after the other, from successive client ports.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "http")]
    pub count: u32,
    /// Trace an HTTP request: method and path with its query; the path alone is a GET.
    #[arg(long, value_name = "METHOD PATH", value_parser = parse_request)]
    pub http: Option<HttpRequest>,
    /// Header of the request; may be repeated. `host` is the authority, else --to.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header, requires = "http")]
    pub headers: Vec<(String, String)>,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// What an HTTP request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
}

fn parse_request(text: &str) -> Result<HttpRequest, String> {
    let (method, target) = text.trim().split_once(' ').unwrap_or(("GET", text.trim()));
    let (method, target) = (method.to_owned(), target.trim().to_owned());
    if target.starts_with('/') {
        Ok(HttpRequest { method, target })
    } else {
        Err(format!("`{text}` is not METHOD PATH such as `GET /reviews`"))
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is not NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn parse_client(text: &str) -> Result<SocketAddr, String> {
    /// A client port like many: the lowest of Linux' ephemeral range.
    const PORT: u16 = 32_768;
    let address = || text.trim_start_matches('[').trim_end_matches(']').parse();
    text.parse()
        .or_else(|_| address().map(|ip| SocketAddr::new(ip, PORT)))
        .map_err(|_| format!("`{text}` is not IP or IP:PORT"))
}
