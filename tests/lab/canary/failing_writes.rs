//! A report that cannot be written: the mail server keeps the message and reads why, and no part of a report is left.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Output;
use std::time::SystemTime;

use gatepost::addr::Family;
use gatepost::canary::{CanaryAddresses, CanaryDirection, CanaryToken, PairId, compose};
use gatepost::hmac_key::HmacKey;
use gatepost::time::Timestamp;

use super::{CANARY, GATEPOST, NOBODY};
use crate::harness::tests;
use crate::support::Lab;

tests![each_failed_write_is_explained_and_leaves_nothing];

const REPORT: &str = "0707070707070707-ipv6.json";

/// Runs `gatepost canary receive` in a mount namespace of its own after `prepare`, then lists the directory.
fn receive(lab: &Lab, prepare: &str, as_user: &str) -> Output {
    let path = |name: &str| lab.path(name).to_str().unwrap().to_owned();
    let (key, message, reports) = (path("canary.key"), path("message"), path("reports"));
    let script = format!(
        "cd {0}; {prepare}\n{as_user} {GATEPOST} canary receive --key {key} --to {CANARY} --reports {reports} < {message}\n\
         status=$?; ls -A {reports} 2>&1; exit $status",
        path("")
    );
    lab.server.output(["unshare", "--mount", "sh", "-c", &script])
}

fn each_failed_write_is_explained_and_leaves_nothing() {
    let lab = Lab::new();
    let key = "0123456789abcdef".repeat(4);
    fs::write(lab.path("canary.key"), &key).unwrap();
    chown(lab.path("canary.key"), Some(NOBODY), None).unwrap();
    let token = CanaryToken {
        pair: PairId::new([7; 8]),
        family: Family::Ipv6,
        direction: CanaryDirection::Inbound,
        sent: Timestamp::from_system_time(SystemTime::now()),
    };
    let addresses = CanaryAddresses { from: "check@example.net".to_owned(), to: CANARY.to_owned() };
    let key = HmacKey::parse(key.as_bytes()).unwrap();
    fs::write(lab.path("message"), compose(&token, &addresses, "example.net", &key)).unwrap();

    let nobody = format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups");
    let tmpfs =
        |options: &str| format!("mkdir -p reports; mount -t tmpfs -o {options} none reports");
    let full = tmpfs("size=8k") + "; head -c 100k /dev/zero > reports/fill 2>/dev/null";
    for (prepare, as_user, error, remedy, left) in [
        (
            "rm -rf reports",
            "",
            "No such file or directory",
            "create the directory for this user",
            None,
        ),
        ("touch reports", "", "Not a directory", "name a directory", None),
        (full.as_str(), "", "No space left on device", "free some space: `df ", Some("fill")),
        (&tmpfs("nr_inodes=1"), "", "No space left on device", "`df -i ", Some("")),
        (&tmpfs("ro"), "", "Read-only file system", "mount the file system for writing", Some("")),
        (
            "mkdir reports",
            &nobody,
            "Permission denied",
            "let user 65534 write there: `chown 65534 ",
            Some(""),
        ),
    ] {
        let _none = fs::remove_file(lab.path("reports"));
        let _none = fs::remove_dir(lab.path("reports"));
        let output = receive(&lab, prepare, as_user);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(75), "{prepare}: {stderr}");
        assert!(stderr.contains("cannot write a report to "), "{prepare}: {stderr}");
        assert!(stderr.contains(error) && stderr.contains(remedy), "{prepare}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{prepare}: {stderr}");
        if let Some(left) = left {
            assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), left, "{prepare}");
        }
    }
    // The mail server tries again when there is space.
    let output = receive(&lab, &(full + "; rm reports/fill"), "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), REPORT);
}
