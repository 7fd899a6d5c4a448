//! All analyzers at once: order, documents, hostile shapes.
use super::*;

#[test]
fn everything_at_once_is_in_the_order_of_lines_and_names_are_unique() {
    let text = service("s", "{ports: [{port: 1}]}")
        + &virtual_service("a", "{hosts: [s.default], gateways: [g]}")
        + &service("t", "{ports: [{port: 1}]}");
    let found = analyze(&parse(&text, Path::new("f.yaml")));
    let lines: Vec<u32> = found.iter().map(|found| found.origin.line).collect();
    assert!(lines.is_sorted() && lines.len() == 5, "{found:#?}");
    assert!(ANALYZERS.windows(2).all(|pair| pair[0].name < pair[1].name));
}

/// The reference says what every code means, and invents none.
#[test]
fn every_code_is_documented() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference-analyze.md")).unwrap();
    let own = crate::source::code::ALL.iter().chain(ANALYZERS.iter().flat_map(|analyzer| analyzer.codes));
    for code in own.clone() {
        assert!(text.contains(&format!("\n| {code} |")), "{code} is not in docs/reference-analyze.md");
    }
    for row in text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter(|row| row.starts_with("IST") || row.starts_with("CAN"))
    {
        let code = row.split(' ').next().unwrap();
        assert!(own.clone().any(|known| *known == code), "{code} is in docs/reference-analyze.md only");
    }
    for analyzer in &ANALYZERS {
        assert!(
            text.contains(&format!("| `{}` |", analyzer.name)),
            "{} is not in docs/reference-analyze.md",
            analyzer.name
        );
    }
}

proptest::proptest! {
    /// Bodies are whatever somebody wrote: no shape makes an analyzer panic.
    #[test]
    fn no_shape_makes_it_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "hosts: [a, 5, '*', '']", "hosts: x", "http: [{route: [{}]}]", "http: [5, {match: [{}, 3, {uri: {prefix: /}}, {uri: {prefix: /}}]}]", "http: {a: b}",
        "tcp: [{match: [null], route: [{destination: {host: a, subset: v, port: 5}}]}]", "gateways: [g, /, '', a/b/c, mesh]", "exportTo: ['.', '*', 7]",
        "subsets: [{}, 5, {name: v, labels: 5}]", "host: ''", "host: '*'", "ports: [{port: -1}, 5, {}, {number: x, protocol: 7}]", "selector: 5", "template: {metadata: 7}",
        "servers: [{hosts: ['*/', '/x', '*']}]", "addresses: 5",
    ]), 0..5), kinds in proptest::collection::vec(proptest::sample::select(vec![
        ("networking.istio.io/v1", "VirtualService"), ("networking.istio.io/v1", "DestinationRule"), ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1", "ServiceEntry"), ("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "Pod"), ("networking.istio.io/v1", "Sidecar"),
    ]), 1..5)) {
        let body = |index: usize| pieces.iter().cycle().skip(index).take(pieces.len()).enumerate()
            .filter(|(at, piece)| !pieces.iter().cycle().skip(index).take(*at).any(|other| other.split(':').next() == piece.split(':').next()))
            .map(|(_, piece)| format!("  {piece}\n")).collect::<Vec<_>>().concat();
        let text: String = kinds.iter().enumerate().map(|(index, (api, kind))| object(api, kind, &format!("o{index}"), &format!("spec:\n{}", body(index)))).collect();
        let snapshot = parse(&text, Path::new("f.yaml"));
        proptest::prop_assert_eq!(snapshot.objects.len(), kinds.len(), "{}", text);
        for found in analyze(&snapshot) {
            proptest::prop_assert!(found.origin.line > 0);
        }
    }
}

/// What we tell people to start from must not be complained about.
#[test]
fn the_example_is_clean() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/helloworld");
    let snapshot = crate::source::directory::Directory::open(path).unwrap().read().unwrap();
    assert!(snapshot.objects.len() >= 4, "{}", snapshot.objects.len());
    assert_eq!((snapshot.diagnostics.as_slice(), analyze(&snapshot).as_slice()), (&[][..], &[][..]));
}
