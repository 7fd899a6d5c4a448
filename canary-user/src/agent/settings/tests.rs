//! Flags, the file, and what is wrong with either.
use super::*;

fn flags(attach: &[&str]) -> Options {
    Options {
        config: Some("/etc/canary".into()),
        attach: attach.iter().map(|text| parse_attach(text).unwrap()).collect(),
        ..Options::default()
    }
}

fn read(flags: Options, file: &'static str) -> Result<Settings, SettingsError> {
    Settings::read(flags, Some(Path::new("agent.toml")), |_| Ok(file.into()))
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file =
        "attach = [\"xdp:lan0\"]\nflows = 7\nudp-idle-seconds = 5\nlog = \"debug\"\nmetrics = \"127.0.0.1:9464\"";
    let settings = read(Options { flows: Some(9), ..flags(&["tc:eth0"]) }, file).unwrap();
    assert_eq!(settings.attach, [parse_attach("tc:eth0").unwrap()]);
    assert_eq!(settings.dataplane.capacity.flows, 9);
    assert_eq!(settings.dataplane.idle.udp_seconds, 5);
    assert_eq!(settings.dataplane.idle.tcp_seconds, 7_440);
    assert_eq!(settings.log, "debug");
    assert_eq!(settings.metrics, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(settings.socket, Path::new(SOCKET));
    assert_eq!(read(flags(&[]), file).unwrap().attach, [parse_attach("xdp:lan0").unwrap()]);
}

#[test]
fn times_of_the_proxy_have_defaults_and_are_never_zero() {
    let settings = read(flags(&["tc:eth0"]), "proxy-drain-seconds = 7\ntake-over = true").unwrap();
    let expected = proxy::server::Settings { drain: Duration::from_secs(7), ..Default::default() };
    assert_eq!((settings.proxy_times, settings.take_over, settings.proxy_connections), (expected, true, None));
    for name in ["proxy-drain-seconds", "proxy-body-seconds", "proxy-connections", "proxy-request-rate"] {
        let file: &'static str = format!("{name} = 0").leak();
        let error = read(flags(&["tc:eth0"]), file).unwrap_err().to_string();
        assert_eq!(error, format!("{name} is 0: canary needs at least one"));
    }
}

#[test]
fn metrics_are_off_unless_asked_for() {
    assert_eq!(Settings::read(flags(&["tc:eth0"]), None, |_| unreachable!()).unwrap().metrics, None);
}

#[test]
fn what_is_wrong_is_said_with_its_remedy() {
    let text = |flags, file| read(flags, file).unwrap_err().to_string();
    assert!(text(flags(&[]), "").starts_with("nothing to attach to: give --attach xdp:IFACE"));
    assert!(
        text(Options { config: None, ..flags(&["tc:a"]) }, "").starts_with("no services: give --config DIR or --kube")
    );
    assert_eq!(
        text(flags(&["tc:a", "xdp:a"]), ""),
        "--attach names interface `a` twice: an interface has one hook, xdp or tc"
    );
    assert_eq!(text(flags(&["tc:a"]), "flows = 0"), "flows is 0: canary needs at least one");
    let loud = read(flags(&["tc:a"]), "log = \"loud\"").unwrap_err();
    assert!(crate::diagnostic::chain(&loud).contains("`loud` is neither a level (error, warn, info"), "{loud:?}");
    assert_eq!(text(flags(&["tc:a"]), "flow = 1"), "configuration file agent.toml is not valid");
    for (attach, error) in [
        ("eth0", "`eth0` is not HOOK:IFACE such as `xdp:eth0` or `tc:eth0`, or `cgroup:/sys/fs/cgroup`"),
        ("ebpf:eth0", "`ebpf:eth0` is not HOOK:IFACE such as `xdp:eth0` or `tc:eth0`, or `cgroup:/sys/fs/cgroup`"),
        ("tc:", "`` is not the name of an interface"),
    ] {
        assert_eq!(parse_attach(attach).unwrap_err(), error);
    }
}

#[test]
fn the_access_log_is_off_unless_asked_for_and_takes_a_share() {
    let log = |flags, file| read(flags, file).map(|settings| settings.access_log);
    assert_eq!(log(flags(&["tc:a"]), "").unwrap(), None);
    let all = log(Options { access_log: Some("-".into()), ..flags(&["tc:a"]) }, "").unwrap().unwrap();
    assert_eq!((all.file.as_path(), all.sample), (Path::new("-"), Sample::ALL));
    let half = log(flags(&["tc:a"]), "access-log = \"/var/log/a\"\naccess-log-sample = 0.5").unwrap().unwrap();
    assert_eq!(half.sample, parse_sample("0.5").unwrap());
    let alone = log(flags(&["tc:a"]), "access-log-sample = 0.5").unwrap_err().to_string();
    assert!(alone.starts_with("--access-log-sample without --access-log FILE"), "{alone}");
    for (text, error) in [
        ("0", "0 is not a ratio above 0 and up to 1, such as 0.01"),
        ("1.5", "1.5 is not a ratio above 0 and up to 1, such as 0.01"),
        ("half", "`half` is not a ratio such as 0.01"),
    ] {
        assert_eq!(parse_sample(text).unwrap_err(), error);
    }
}
