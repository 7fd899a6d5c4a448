//! Rules that need the server name of a TLS connection: what the proxy does with each connection to a service port.
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Split;

/// The rules for the TLS connections of one service port, which are passed on as they are; no rule matches: the
/// connection ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// In order; the match with the most specific name decides, of equal ones the first.
    pub rules: Vec<TlsRule>,
}

/// One rule: for which connections, and how they are split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRule {
    /// `tls[0]`, `tcp[1]`, … by position, or `default` for those that the VirtualService says nothing about.
    pub name: String,
    /// Alternatives.
    pub matches: Vec<TlsMatch>,
    /// It also takes the clients that no match of another rule is for, whatever name they ask for.
    pub rest: bool,
    /// How connections are split.
    pub split: Split,
}

/// One alternative: both must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsMatch {
    /// Client networks; empty matches everybody.
    pub sources: Vec<IpNet>,
    /// Server names in lower case, perhaps with a leading `*`; empty matches every name, and none.
    pub names: Vec<String>,
}
