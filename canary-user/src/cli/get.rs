//! `canary get`: lists, whole or of one service.
use std::{thread, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    agent::edit::{is_named, likely_service},
    api::dto::{EndpointV1, FlowsV1, LeaveV1, ServiceV1, VersionV1},
    cli::{
        Exit, Failure,
        args::{Format, GetArgs, Resource},
        client::{Client, escaped},
        output::{Row, Screen, count},
    },
    source::similar::did_you_mean,
};

/// What to list, after the two ways to name something.
struct Wanted<'a> {
    name: Option<&'a str>,
    format: Format,
    limit: usize,
    /// A name that nobody has is an error; later, in a watch, what had it may have gone.
    strict: bool,
}

pub(super) fn get(client: &Client, screen: &mut Screen<'_>, args: &GetArgs, terminal: bool) -> Result<Exit, Failure> {
    let name = match (&args.listed.name, &args.name) {
        (Some(one), Some(other)) => return Err(Failure::usage(format!("name one thing: `{one}` or `{other}`"))),
        (one, other) => one.as_deref().or(other.as_deref()),
    };
    let mut wanted = Wanted { name, format: args.output.format, limit: args.limit, strict: true };
    loop {
        if args.watch && terminal {
            // Home, and clear to the end.
            write!(screen.out, "\x1b[H\x1b[J")?;
        }
        once(client, screen, args.listed.resource, &wanted)?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        screen.out.flush()?;
        thread::sleep(Duration::from_secs(1));
        wanted.strict = false;
    }
}

fn once(client: &Client, screen: &mut Screen<'_>, resource: Resource, wanted: &Wanted<'_>) -> Result<(), Failure> {
    match resource {
        Resource::Services => {
            list(client, screen, wanted, "/v1/services", "No services.", |item: &ServiceV1| &item.service)
        }
        Resource::Versions => {
            list(client, screen, wanted, "/v1/versions", "No versions.", |item: &VersionV1| &item.service)
        }
        Resource::Endpoints => {
            list(client, screen, wanted, "/v1/endpoints", "No endpoints.", |item: &EndpointV1| &item.service)
        }
        Resource::Flows => flows(client, screen, wanted),
        Resource::Leaves => leaves(client, screen, wanted),
    }
}

fn list<T: Row + Serialize + DeserializeOwned>(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: &Wanted<'_>,
    path: &str,
    empty: &str,
    service: impl Fn(&T) -> &str,
) -> Result<(), Failure> {
    let mut items: Vec<T> = client.list(path)?;
    if let Some(name) = wanted.name {
        // By service, or as `-o name` prints it.
        let own = |item: &T| item.name().split_once('/').is_some_and(|(_kind, own)| own == name);
        items.retain(|item| is_named(service(item), name) || own(item));
        if items.is_empty() && wanted.strict {
            known_service(client, name)?;
        }
    }
    screen.list(&items, wanted.format, empty)?;
    Ok(())
}

fn flows(client: &Client, screen: &mut Screen<'_>, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let service = wanted.name.map(|name| format!("&service={}", escaped(name))).unwrap_or_default();
    let flows: FlowsV1 = client.get(&format!("/v1/flows?limit={}{service}", wanted.limit))?;
    if let Some(name) = wanted.name.filter(|_| flows.items.is_empty() && wanted.strict) {
        known_service(client, name)?;
    }
    match wanted.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&flows, format)?,
        format => screen.list(&flows.items, format, "No flows.")?,
    }
    if flows.truncated {
        let shown = count(flows.items.len(), "flow");
        writeln!(screen.err, "there are more than {shown}; --limit sets how many are listed")?;
    }
    Ok(())
}

fn leaves(client: &Client, screen: &mut Screen<'_>, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let mut items: Vec<LeaveV1> = client.list("/v1/leaves")?;
    if let Some(name) = wanted.name {
        // Every reason is listed, also at 0.
        if !items.iter().any(|item| item.reason == name) {
            let meant = did_you_mean(name, items.iter().map(|item| item.reason.as_str()));
            let remedy = format!("{meant}`canary get leaves` lists them");
            return Err(Failure::new(format!("there is no reason `{name}`"), remedy));
        }
        items.retain(|item| item.reason == name);
    }
    screen.list(&items, wanted.format, "No packets were left alone.")?;
    Ok(())
}

/// Says that there is no such service, and which one may be meant.
pub(super) fn known_service(client: &Client, name: &str) -> Result<(), Failure> {
    let services: Vec<ServiceV1> = client.list("/v1/services")?;
    let mut ids = services.iter().map(|service| service.service.as_str());
    if ids.clone().any(|id| is_named(id, name)) {
        return Ok(());
    }
    let remedy = format!("{}`canary get services` lists them", likely_service(name, &mut ids));
    Err(Failure::new(format!("there is no service `{name}`"), remedy))
}
