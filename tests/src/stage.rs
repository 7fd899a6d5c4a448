//! The story with an agent: what a test or the demo does to it, in one call each.
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use crate::{
    agent::{Agent, EndpointState},
    background::Background,
    load::{self, Load, Progress, Protocol},
    resources::{Endpoint, Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, vip},
    tally::{Tally, Weights},
};

/// What a stage is set up with.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the program is attached.
    pub hook: Hook,
    /// Which of the service's addresses clients use.
    pub ipv6: bool,
    /// Pods of v1 and v2.
    pub pods: (u8, u8),
    /// Weights to begin with.
    pub weights: Weights,
    /// What else the resources say.
    pub extras: Extras,
}

impl Setting {
    /// The blog's: three pods of v1, one of v2, 90:10.
    #[must_use]
    pub fn new(hook: Hook, ipv6: bool) -> Self {
        Self { hook, ipv6, pods: (3, 1), weights: Weights { v1: 90, v2: 10 }, extras: Extras::default() }
    }
}

/// Namespaces, pods and an agent that has taken up their resources.
#[derive(Debug)]
pub struct Stage {
    // In this order: the agent ends before its namespace is let go.
    /// The agent.
    pub agent: Agent,
    /// The namespaces.
    pub story: Story,
    ipv6: bool,
}

impl Stage {
    /// Sets everything up and waits until every endpoint serves.
    ///
    /// # Errors
    /// When something does not start; says what, with the agent's log.
    pub fn new(setting: &Setting) -> Result<Self> {
        let story = Story::new(setting.hook, setting.pods.0, setting.pods.1)?;
        let mut agent = Agent::new(&story)?;
        write_service(&agent.config(), setting.weights, &setting.extras)?;
        write_endpoints(&agent.config(), &story.endpoints())?;
        agent.start(&story)?;
        let stage = Self { agent, story, ipv6: setting.ipv6 };
        stage.agent.wait_for(&stage.sockets(&stage.story.endpoints()), &[EndpointState::Serving])?;
        Ok(stage)
    }

    /// The address that clients use.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        vip(self.ipv6)
    }

    /// Opens connections, waits for their end, and counts.
    ///
    /// # Errors
    /// When the client cannot run.
    pub fn connect(&self, connections: u32) -> Result<Tally> {
        self.send(Load::tcp(self.target(), connections))
    }

    /// The same by UDP.
    ///
    /// # Errors
    /// When the client cannot run.
    pub fn datagrams(&self, flows: u32) -> Result<Tally> {
        self.send(Load { protocol: Protocol::Udp, ..Load::tcp(self.target(), flows) })
    }

    fn send(&self, load: Load) -> Result<Tally> {
        self.story.client.run(|| load::run(load, &Progress::new()))?
    }

    /// Opens connections and keeps them talking.
    ///
    /// # Errors
    /// When one does not open.
    pub fn hold(&self, connections: u32) -> Result<Background> {
        Background::hold(&self.story.client, self.target(), connections)
    }

    /// `canary set-weight`, which returns when the weights are in force.
    ///
    /// # Errors
    /// When it fails.
    pub fn set_weights(&self, Weights { v1, v2 }: Weights) -> Result<()> {
        self.agent.call(&["set-weight", "helloworld", &format!("v1={v1}"), &format!("v2={v2}")]).map(drop)
    }

    /// Makes `endpoints` the service's endpoints, as Kubernetes would, and waits until the agent follows.
    ///
    /// # Errors
    /// When it does not follow.
    pub fn publish(&self, endpoints: &[Endpoint]) -> Result<()> {
        write_endpoints(&self.agent.config(), endpoints)?;
        self.agent.wait_for(&self.sockets(endpoints), &[EndpointState::Serving])?;
        let gone: Vec<Endpoint> = self.story.endpoints().into_iter().filter(|pod| !endpoints.contains(pod)).collect();
        self.agent.wait_for(&self.sockets(&gone), &[EndpointState::Draining, EndpointState::Absent])
    }

    /// Scales v2 as an autoscaler would. Pods that are no longer wanted leave the service and go on running; their
    /// names are returned, for [`Story::remove_pod`].
    ///
    /// # Errors
    /// When a pod does not start or the agent does not follow.
    pub fn scale_v2(&mut self, count: usize) -> Result<Vec<String>> {
        while self.story.endpoints_of("v2").len() < count {
            self.story.add_pod("v2")?;
        }
        let surplus: Vec<Endpoint> = self.story.endpoints_of("v2").split_off(count);
        let mut wanted = self.story.endpoints();
        wanted.retain(|endpoint| !surplus.contains(endpoint));
        self.publish(&wanted)?;
        Ok(surplus.into_iter().map(|endpoint| endpoint.pod).collect())
    }

    fn sockets(&self, endpoints: &[Endpoint]) -> Vec<SocketAddr> {
        let address = |endpoint: &Endpoint| if self.ipv6 { IpAddr::from(endpoint.v6) } else { endpoint.v4.into() };
        endpoints.iter().map(|endpoint| SocketAddr::new(address(endpoint), PORT)).collect()
    }
}
