//! The agent's proxy, which nobody knows when there is only files.
use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    agent::settings,
    cli::{Failure, args::FilesArgs},
    compile::{Compiled, ProxyAddresses},
    diagnostic::{Diagnostic, Severity},
};

/// The code of the note that a service needs the proxy.
pub(super) const NEEDED: &str = "CAN0316";
/// Stand for the addresses of a proxy that is taken to be there. No agent can have these.
const ASSUMED: [&str; 2] = ["127.0.0.1:15001", "[::1]:15001"];

/// Where the proxy is, and whether that was said.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) addresses: ProxyAddresses,
    assumed: bool,
}

impl Proxy {
    pub(super) fn of(args: &FilesArgs) -> Result<Self, Failure> {
        let assumed = args.proxy.is_empty() && !args.without_proxy;
        let given = settings::proxies(args.proxy.clone()).map_err(|error| Failure::new(error.to_string(), ""))?;
        let stand_ins = ASSUMED.iter().filter_map(|text| text.parse::<SocketAddr>().ok()).filter(|_| assumed);
        Ok(Self { addresses: given.into_iter().chain(stand_ins).collect(), assumed })
    }

    /// Notes for services that need it, unless it was said that it is there.
    pub(super) fn notes(&self, compiled: &Compiled) -> BTreeSet<Diagnostic> {
        let proxied = compiled.state.services.iter().filter(|(_, service)| self.assumed && service.is_proxied());
        let notes = proxied.filter_map(|(id, service)| {
            let route = compiled.services.get(id)?.virtual_service.as_ref()?;
            let what = if service.http.is_some() { "the request" } else { "the server name" };
            Some(Diagnostic {
                severity: Severity::Info,
                code: NEEDED,
                object: route.object.clone(),
                field: "spec".to_owned(),
                origin: route.origin.clone(),
                message: format!("rules of service {id} need {what}: an agent enforces them if it has a proxy"),
                remedy: "start it with --proxy; say --proxy or --without-proxy here to check for a certain one".into(),
            })
        });
        notes.collect()
    }
}
