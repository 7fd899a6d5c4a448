//! Scalars, and where things stand.
use serde_json::json;

use super::*;

#[test]
fn plain_scalars_follow_the_core_schema() {
    let cases = [
        ("90", json!(90)),
        ("-3", json!(-3)),
        ("+3", json!(3)),
        ("++3", json!("++3")),
        ("0x1f", json!(31)),
        ("0o17", json!(15)),
        ("0x+1", json!("0x+1")),
        ("10.0", json!(10.0)),
        ("1e3", json!(1000.0)),
        ("1e999", json!("1e999")),
        (".nan", json!(".nan")),
        ("18446744073709551615", json!(u64::MAX)),
        ("true", json!(true)),
        ("yes", json!("yes")),
        ("~", json!(null)),
        ("1.2.3", json!("1.2.3")),
        ("inf", json!("inf")),
        ("'90'", json!("90")),
        ("!!str 90", json!("90")),
        ("!!int 90", json!(90)),
        ("!custom 90", json!(90)),
    ];
    for (text, expected) in cases {
        let found = documents(&format!("a: {text}\n"));
        assert_eq!(found[0].as_ref().unwrap().get("a").unwrap().to_value(), expected, "{text}");
    }
}

#[test]
fn spans_are_bytes_of_the_whole_text() {
    let text = "\u{feff}ä: 1\n--- # ö\nä: é\nlist:\n- {w: 10} # ü\n- w: 'quoted'\n";
    let found = documents(text);
    let second = found[1].as_ref().unwrap();
    assert_eq!(&text[second.get("ä").unwrap().span.clone()], "é");
    let items = second.get("list").unwrap().items();
    assert_eq!(&text[items[0].span.clone()], "{w: 10}");
    assert_eq!(&text[items[0].get("w").unwrap().span.clone()], "10");
    assert_eq!(&text[items[1].get("w").unwrap().span.clone()], "'quoted'");
    assert_eq!(&text[items[1].entry("w").unwrap().key_span.clone()], "w");
    assert_eq!((items[1].line, second.get("list").unwrap().line), (6, 5));
}
