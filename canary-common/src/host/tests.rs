//! The description of tables becomes tables that hold together.
use std::net::SocketAddr;

use super::{
    image::{RuleSpec, ServiceSpec},
    *,
};
use crate::abi::{EVEN, EXACT, LEAF, unrange};

fn spec(weights: &[(&str, u32)], endpoints: &[u32]) -> ServiceSpec {
    let at = |n: usize| SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 80));
    let endpoints: Vec<_> = endpoints.iter().enumerate().map(|(n, &weight)| (at(n), weight)).collect();
    ServiceSpec {
        name: "default/web".into(),
        frontends: vec![(at(200), 6)],
        versions: weights.iter().map(|(name, _)| ((*name).into(), endpoints.clone())).collect(),
        rules: vec![RuleSpec::all(EXACT, weights)],
    }
}

#[test]
fn nothing_points_out_of_the_tables() {
    let mut image = Image::new(1, 1, 1);
    for weights in [&[("v1", 9), ("v2", 1)][..], &[("a", 1)], &[("a", 3), ("b", 0), ("c", 5), ("d", 7)]] {
        for endpoints in [&[][..], &[1], &[1, 1, 1], &[5, 3, 1]] {
            image.add(&spec(weights, endpoints));
        }
    }
    let inside = |child: u32| if child & LEAF == 0 { (child as usize) < image.nodes.len() } else { true };
    assert!(image.nodes.iter().all(|node| inside(node.to_light) && inside(node.to_heavy)));
    for service in &image.services {
        let (base, len) = unrange(service.rules);
        assert!(len == 1 && (base as usize) < image.rules.len());
    }
    for split in &image.splits {
        let leaves = &image.leaves[split.leaves as usize..][..split.leaves_len as usize];
        assert_eq!(leaves.last().unwrap().end, split.total);
        assert!(leaves.iter().all(|leaf| (leaf.version as usize) < image.versions.len()));
    }
    for version in &image.versions {
        let group = image.groups[version.group as usize];
        let members = &image.members[group.members as usize..][..group.members_len as usize];
        let ring = &image.members[group.ring as usize..][..group.ring_len as usize];
        assert!(ring.iter().all(|slot| members.contains(slot)));
        assert!(members.iter().all(|slot| ring.contains(slot)), "everybody has a place on the ring");
        assert!(group.root == EVEN || inside(group.root));
    }
}

#[test]
fn an_endpoint_keeps_its_slot_until_it_drains() {
    let mut image = Image::new(1, 1, 1);
    let service = image.add(&spec(&[("v1", 1)], &[1, 1]));
    let version = image.version(service, "v1");
    let at = SocketAddr::from(([10, 0, 0, 1], 80));
    let slot = image.endpoint(at).unwrap();
    image.set_endpoints(version, &[(at, 1)]);
    assert_eq!(image.endpoint(at), Some(slot));
    image.drain(slot, 9);
    image.set_endpoints(version, &[(at, 1)]);
    assert_ne!(image.endpoint(at), Some(slot), "whoever comes back is somebody else");
}
