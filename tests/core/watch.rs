//! `gatepost watch` with options that it rejects.

use std::process::{Command, Output};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

#[test]
fn invalid_options_are_reported() {
    for (arguments, expected) in [
        (["--buffer", "5T"], "write a size in bytes from 64K to 4G, such as 256M"),
        (["--buffer", "8G"], "write a size in bytes from 64K to 4G, such as 256M"),
        (["--source", "libpcap"], "[possible values: auto, ebpf, pcap]"),
        (["--format", "xml"], "[possible values: text, json]"),
        (["--port", "0"], "0 is not in 1..=65535"),
        (["--local", "2001:db8::/129"], "write an address or a network such as 192.0.2.0/24"),
        (["--duration", "1 fortnight"], "unknown time unit"),
        (["--count", "0"], "0 is not in 1.."),
        (["--metrics", "9625"], "invalid socket address syntax"),
    ] {
        let stderr = refused(&arguments);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    let stderr = refused(&["--force"]);
    assert!(stderr.contains("--write <FILE.pcapng>"), "{stderr}");
    let stderr = refused(&["-i", "no-such-one"]);
    assert!(
        stderr.starts_with("gatepost: no interface \"no-such-one\"; available interfaces: "),
        "{stderr}"
    );
}

/// Runs `gatepost watch`, which must fail; returns its standard error.
fn refused(arguments: &[&str]) -> String {
    let output = watch(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn watch(arguments: &[&str]) -> Output {
    Command::new(GATEPOST).arg("watch").args(arguments).output().unwrap()
}
