//! Lines of real requests in real files.
use std::{path::Path, sync::Arc, time::Duration};

use serde_json::Value;

use super::*;
use crate::{
    proxy::{
        table::RouteTable,
        tests::fixture::{FRONTEND, Proxy, Raw, at, named, proxy_with, route, rule, state},
    },
    state::State,
};

async fn logged(settings: &Settings, state: &State) -> (Proxy, Writer) {
    let writer = Writer::start(settings).unwrap();
    let table = RouteTable::build(state, Some(&RouteTable::logging(Some(writer.log()))));
    (proxy_with(table, 1_000).await, writer)
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn until(file: &Path, count: usize) -> Vec<Value> {
    for _ in 0..250 {
        if lines(file).len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lines(file)
}

#[tokio::test]
async fn a_line_says_what_istios_says() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { file: dir.path().join("access.log"), sample: Sample::ALL };
    let endpoint = named("v1").await;
    let (proxy, writer) = logged(&settings, &state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(endpoint))])).await;
    let mut client = Raw::to(&proxy).await;
    let port = client.0.local_addr().unwrap().port();
    client
        .say("POST /a?b=c HTTP/1.1\r\nHost: web\r\nUser-Agent: t/\"1\"\r\nX-Forwarded-For: 192.0.2.9\r\nX-Request-Id: 7\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    client.hear("v1").await;
    proxy.change(&State::default());
    client.get("/gone").await;
    let lines = until(&settings.file, 2).await;
    let (first, second) = (&lines[0], &lines[1]);
    for (field, value) in [
        ("method", Value::from("POST")),
        ("path", "/a?b=c".into()),
        ("protocol", "HTTP/1.1".into()),
        ("response_code", 200.into()),
        ("response_flags", "-".into()),
        ("bytes_received", 3.into()),
        ("bytes_sent", 2.into()),
        ("x_forwarded_for", "192.0.2.9, 127.0.0.1".into()),
        ("user_agent", "t/\"1\"".into()),
        ("request_id", "7".into()),
        ("authority", "web".into()),
        ("upstream_host", endpoint.to_string().into()),
        ("upstream_cluster", "outbound|80|v1|web.default.svc.cluster.local".into()),
        ("downstream_local_address", FRONTEND.to_string().into()),
        ("downstream_remote_address", format!("127.0.0.1:{port}").into()),
        ("route_name", "http[0]".into()),
    ] {
        assert_eq!(first[field], value, "{field} of {first}");
    }
    assert!(first["duration"].is_u64(), "{first}");
    let start = first["start_time"].as_str().unwrap();
    assert!(start.len() == "2026-08-01T12:00:00.123Z".len() && start.ends_with('Z'), "{start}");
    for (field, value) in [("response_code", Value::from(404)), ("response_flags", "NR".into())] {
        assert_eq!(second[field], value, "{second}");
    }
    for field in ["upstream_host", "upstream_cluster", "route_name", "user_agent"] {
        assert!(second[field].is_null(), "{field} of {second}");
    }
    assert_eq!(second["request_id"].as_str().unwrap().len(), 36);
    writer.stop();
}

#[tokio::test]
async fn a_file_that_was_renamed_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let settings = Settings { file: file.clone(), sample: Sample::ALL };
    let (proxy, writer) = logged(&settings, &State::default()).await;
    let ask = async |path: &str| Raw::to(&proxy).await.get(path).await;
    ask("/1").await;
    assert_eq!(until(&file, 1).await.len(), 1);
    std::fs::rename(&file, &old).unwrap();
    ask("/2").await;
    assert_eq!(until(&old, 2).await.len(), 2, "the file goes with its name");
    writer.reopen();
    ask("/3").await;
    let paths: Vec<_> = until(&file, 1).await.iter().map(|line| line["path"].clone()).collect();
    assert_eq!(paths, ["/3"]);
    writer.stop();
}

/// Somebody who does not read: then nobody may wait for it.
#[tokio::test]
async fn lines_that_there_is_no_room_for_are_counted_and_nobody_waits() {
    let (queue, messages) = mpsc::sync_channel(2);
    let door = Door { queue, sample: Sample::ALL, dropped: Arc::default(), reopen: Arc::default() };
    let log = AccessLog(Arc::new(door));
    let proxy = proxy_with(RouteTable::logging(Some(log.clone())), 1_000).await;
    for _ in 0..5 {
        assert_eq!(Raw::to(&proxy).await.get("/").await.0, 404);
    }
    assert_eq!((log.dropped(), messages.try_iter().count()), (3, 2));
    assert_eq!(proxy.table.borrow().requests().unlogged, 3);
}

#[test]
fn a_share_is_a_share() {
    assert_eq!(Sample::try_from(1.0), Ok(Sample::ALL));
    let half = Sample::try_from(0.5).unwrap();
    let taken = (0..100_000).filter(|_| half.holds()).count();
    // Six standard deviations of a binomial: 6 * sqrt(1e5) / 2 = 949.
    assert!(taken.abs_diff(50_000) < 949, "{taken}");
    for wrong in [0.0, -1.0, 1.001, f64::NAN] {
        assert!(Sample::try_from(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let settings = Settings { file: "/no/such/directory/log".into(), sample: Sample::ALL };
    assert!(Writer::start(&settings).is_err());
}
