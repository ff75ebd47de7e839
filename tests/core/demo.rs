//! `gatepost demo` from outside: its table against the metrics that its gateway serves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// The sum over all series of `name` whose labels contain each of `labels`.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let series = metrics.lines().filter(|line| {
        line.split(['{', ' ']).next() == Some(name)
            && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<u64> =
        series.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "no series of {name} with {labels:?}");
    values.iter().sum()
}

/// One GET in HTTP/1.0: no chunks, and the end of the response is the end of the connection.
fn get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.contains(" 200 OK\r\n"), "{response}");
    response
}

/// `ipv4: 7 sessions, 3 inside TLS, 5 messages relayed, rejections in 4 sessions`
fn totals(line: &str) -> (&str, [u64; 4]) {
    let (family, counts) = line.split_once(": ").unwrap();
    let numbers = counts.split(' ').filter_map(|word| word.parse().ok());
    (family, numbers.collect::<Vec<_>>().try_into().unwrap())
}

#[test]
fn the_table_agrees_with_the_metrics() {
    let mut demo = Command::new(GATEPOST).arg("demo").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let table: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    let metrics = get(table.iter().find_map(|line| line.strip_prefix("metrics: ")).unwrap());
    let families = table.iter().filter(|line| line.starts_with("ipv") && line.contains(" relayed"));
    let mut sessions_of_all = 0;
    for (family, [sessions, inside_tls, messages, _]) in families.map(|line| totals(line)) {
        let family = format!("family=\"{family}\"");
        assert_eq!(sum(&metrics, "gatepost_sessions_total", &[&family]), sessions, "{metrics}");
        let established = [&family, "tls=\"established\""];
        assert_eq!(sum(&metrics, "gatepost_session_tls_total", &established), inside_tls);
        let accepted = [&family, "class=\"2xx\""];
        assert_eq!(sum(&metrics, "gatepost_messages_total", &accepted), messages, "{metrics}");
        sessions_of_all += sessions;
    }
    let rows: Vec<_> = table.iter().filter(|line| line.ends_with(" ok")).collect();
    assert_eq!(rows.len() as u64, sessions_of_all, "{table:#?}");
    for (name, reason) in [
        ("listed host", "access_reject"),
        ("web client", "junk"),
        ("early talker", "pregreet"),
        ("outsider", "xclient"),
    ] {
        let shown = rows.iter().filter(|row| row.starts_with(name)).count();
        let reason = format!("reason=\"{reason}\"");
        let counted = sum(&metrics, "gatepost_refusals_total", &[&reason]);
        assert!(counted >= shown as u64, "{name}: {counted}");
    }
    kill(Pid::from_raw(demo.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(demo.wait().unwrap().success());
}
