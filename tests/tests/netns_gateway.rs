//! A Gateway of canary's class answers at its address: connections split in the kernel, requests by the proxy.
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Result;
use canary_tests::{
    focused::{stage, tally},
    load::{Load, Progress, run},
    story::Hook,
};

const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: canary}
spec: {controllerName: canary.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public}
spec:
  gatewayClassName: canary
  addresses: [{value: 10.96.0.99}]
  listeners:
  - {name: web, port: 80, protocol: HTTP}
  - {name: plain, port: 9000, protocol: TCP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: public}]
  rules:
  - matches: [{path: {value: /hello}}]
    backendRefs: [{name: helloworld-v1, port: 5000}]
  - matches: [{path: {value: /hello}, headers: [{name: x-user, value: friend}]}]
    backendRefs: [{name: helloworld-v1, port: 5000, weight: 1}, {name: helloworld-v2, port: 5000, weight: 3}]
  - matches: [{path: {value: /hello}, headers: [{name: x-user, value: nobody}]}]
    backendRefs: [{name: helloworld-v1, port: 5000, weight: 0}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: plain}
spec:
  parentRefs: [{name: public}]
  rules:
  - backendRefs: [{name: helloworld-v1, port: 5000, weight: 90}, {name: helloworld-v2, port: 5000, weight: 10}]
---
apiVersion: v1
kind: Service
metadata: {name: helloworld-v1}
spec: {selector: {app: helloworld, version: v1}, ports: [{name: http, port: 5000}]}
---
apiVersion: v1
kind: Service
metadata: {name: helloworld-v2}
spec: {selector: {app: helloworld, version: v2}, ports: [{name: http, port: 5000}]}
---
";

#[test]
fn a_gateway_answers_at_its_address() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, GATEWAY)?;
    let at = |port: u16| SocketAddr::from(([10, 96, 0, 99], port));
    let plain = story.client.run(|| run(Load::tcp(at(9_000), 100), &Progress::new()))??;
    assert_eq!((plain.of("v1"), plain.of("v2"), plain.failed), (90, 10, 0), "{plain:?}\n{}", agent.log());
    let everybody = tally(&story, at(80), "", 40, 1)?;
    assert_eq!((everybody.of("v1"), everybody.answers()), (40, 40), "{everybody:?}\n{}", agent.log());
    // The rule that is written later asks for more.
    let friends = tally(&story, at(80), "x-user: friend\r\n", 1, 40)?;
    assert_eq!((friends.of("v1"), friends.of("v2")), (10, 30), "{friends:?}\n{}", agent.log());
    // Nothing has a weight for these.
    let status = story.client.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(at(80))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nx-user: nobody\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    assert!(status.starts_with("HTTP/1.1 500 "), "{status}");
    Ok(())
}
