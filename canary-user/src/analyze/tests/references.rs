//! What is referred to exists: hosts, ports, subsets and their workloads.
use super::*;

#[test]
fn destinations_exist_and_are_suggested() {
    let reviews = service("reviews", "{ports: [{port: 80}]}") + &service("two", "{ports: [{port: 80}, {port: 81}]}");
    let http = |destination: &str| {
        reviews.clone()
            + &virtual_service("a", &format!("{{hosts: [a], http: [{{route: [{{destination: {destination}}}]}}]}}"))
    };
    check(
        "virtualservice.DestinationHostAnalyzer",
        [
            ("there", http("{host: reviews}"), &[][..]),
            (
                "a slip",
                http("{host: reveiws}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.host: referenced host not found: \"reveiws\" — did you mean `reviews`? ",
                ],
            ),
            (
                "tcp",
                reviews.clone() + &virtual_service("a", "{tcp: [{route: [{destination: {host: x}}]}]}"),
                &["IST0101 spec.tcp[0].route[0]"],
            ),
            (
                "tls",
                reviews.clone() + &virtual_service("a", "{tls: [{route: [{destination: {host: x}}]}]}"),
                &["IST0101 spec.tls[0].route[0]"],
            ),
            (
                "mirrors",
                reviews.clone()
                    + &virtual_service("a", "{http: [{mirrors: [{destination: {host: x}}], mirror: {host: y}}]}"),
                &[
                    "IST0101 spec.http[0].mirror.host: referenced mirror host not found",
                    "IST0101 spec.http[0].mirrors[0]",
                ],
            ),
            (
                "two ports",
                http("{host: two}"),
                &[
                    "IST0112 spec.http[0].route[0].destination: \"two\" has the ports 80, 81, and the destination does not say which — add `port: {number: …}`",
                ],
            ),
            ("one of two ports", http("{host: two, port: {number: 81}}"), &[]),
            (
                "no such port",
                http("{host: two, port: {number: 82}}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.port.number: referenced host:port not found: \"two:82\" — use one that it has: 80, 81",
                ],
            ),
            (
                "another namespace",
                reviews.clone() + &virtual_service("other/a", "{http: [{route: [{destination: {host: reviews}}]}]}"),
                &["IST0101"],
            ),
        ],
    );
}

#[test]
fn subsets_are_defined_and_select_workloads() {
    let route =
        |destination: &str| virtual_service("a", &format!("{{http: [{{route: [{{destination: {destination}}}]}}]}}"));
    let rule = |host: &str| {
        destination_rule(
            "r",
            &format!("{{host: {host}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: stable}}]}}"),
        )
    };
    check(
        "virtualservice.DestinationRuleAnalyzer",
        [
            ("defined", rule("reviews") + &route("{host: reviews, subset: v1}"), &[][..]),
            (
                "by its full name",
                rule("reviews.default.svc.cluster.local") + &route("{host: reviews, subset: v1}"),
                &[],
            ),
            ("by a wildcard", rule("'*.default.svc.cluster.local'") + &route("{host: reviews, subset: v1}"), &[]),
            ("no subset", route("{host: reviews}"), &[]),
            (
                "a slip",
                rule("reviews") + &route("{host: reviews, subset: satble}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.subset: referenced host+subset in destinationrule not found: \"reviews+satble\" — did you mean `stable`? it has v1, stable",
                ],
            ),
            (
                "no rule",
                route("{host: reviews, subset: v1}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.subset: referenced host+subset in destinationrule not found: \"reviews+v1\" — add a DestinationRule",
                ],
            ),
            (
                "mirror",
                rule("reviews") + &virtual_service("a", "{http: [{mirror: {host: reviews, subset: v9}}]}"),
                &["IST0101 spec.http[0].mirror.subset: referenced mirror+subset"],
            ),
        ],
    );
    let reviews = service("reviews", "{selector: {app: reviews}}");
    check(
        "destinationrule.PodNotSelectedAnalyzer",
        [
            ("selected", reviews.clone() + &rule("reviews") + &pod("p", "{app: reviews, version: v1}"), &[][..]),
            ("nothing runs that is known", reviews.clone() + &rule("reviews"), &[]),
            (
                "another version",
                reviews.clone() + &rule("reviews") + &pod("p", "{app: reviews, version: v2}"),
                &[
                    "IST0173 spec.subsets[0].labels: subset \"v1\" selects no workload: none has the labels app=reviews, version=v1",
                ],
            ),
            (
                "another app",
                reviews.clone() + &rule("reviews") + &pod("p", "{app: ratings, version: v1}"),
                &["IST0173 spec.subsets[0]", "IST0173 spec.subsets[1]"],
            ),
            (
                "of a Deployment",
                reviews.clone()
                    + &rule("reviews")
                    + &object(
                        "apps/v1",
                        "Deployment",
                        "d",
                        "spec: {template: {metadata: {labels: {app: reviews, version: v1}}}}",
                    ),
                &[],
            ),
            (
                "unknown host",
                reviews + &rule("revews"),
                &["IST0174 spec.host: there is no host \"revews\" — did you mean `reviews`? "],
            ),
        ],
    );
}
