//! dumpcap on a link of the lab, and the function that writes recordings into `captures/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cases::Case;
use super::expectation;
use crate::support::{Host, Lab, Process, until};

/// SMTP, and the ICMP errors of both families; no neighbour discovery.
pub(super) const SMTP: &str = "tcp port 25 or icmp or (icmp6 and ip6[40] < 128)";
/// The same with DNS.
pub(super) const SMTP_AND_DNS: &str = "port 53 or tcp port 25 or icmp or (icmp6 and ip6[40] < 128)";

/// dumpcap writes its packets at least every half second; a pause as long as this means that the session is over.
const QUIET: Duration = Duration::from_secs(2);

/// A running dumpcap.
pub(super) struct Recorder {
    process: Process,
    file: PathBuf,
}

impl Recorder {
    /// Records the packets that match a pcap filter on the host's only link; when this returns, recording has begun.
    pub(super) fn start(lab: &Lab, host: &Host, filter: &str) -> Self {
        let file = lab.path("input.pcap");
        let path = file.to_str().unwrap();
        let process =
            host.spawn(["dumpcap", "-q", "-P", "-i", "gateway", "-f", filter, "-w", path]);
        let recorder = Self { process, file };
        // Printed once the interface is open and the filter is set.
        until("dumpcap to record (Debian: wireshark-common)", || {
            recorder.process.log().contains("File: ").then_some(())
        });
        recorder
    }

    /// Waits until no more packets come, and ends the recording.
    pub(super) fn stop(mut self) -> PathBuf {
        let size = || fs::metadata(&self.file).unwrap().len();
        until("a quiet link", || {
            let before = size();
            thread::sleep(QUIET);
            (size() == before).then_some(())
        });
        self.process.signal(Signal::SIGINT);
        assert!(self.process.wait().success(), "{}", self.process.log());
        let log = self.process.log();
        assert!(log.contains("/0 (pcap:0/dumpcap:0"), "dumpcap lost packets:\n{log}");
        self.file
    }
}

impl Case {
    /// Writes a recording into the case's folder, with its `expect.json`, if all claims of the case hold.
    #[track_caller]
    pub(super) fn write(&self, recording: &Path) {
        let failed = self.failed_claims(recording);
        assert!(
            failed.is_empty(),
            "{} is not what it should be:\n{}\n{}",
            self.name,
            failed.join("\n"),
            summary(recording)
        );
        fs::create_dir_all(self.folder()).unwrap();
        // Not a copy of the file: only root may read dumpcap's.
        fs::write(self.folder().join("input.pcap"), fs::read(recording).unwrap()).unwrap();
        expectation::write(&self.folder());
    }
}

/// One line per packet, to find the fault of a recording.
fn summary(recording: &Path) -> String {
    let output = Command::new("tshark").arg("-r").arg(recording).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes packets from a recording.
pub(super) fn without_packets(recording: &Path, numbers: &[String]) -> PathBuf {
    let rest = recording.with_file_name("rest.pcap");
    let mut editcap = Command::new("editcap");
    editcap.args(["-F", "pcap"]).arg(recording).arg(&rest).args(numbers);
    let output = editcap.output().expect("editcap (Debian: wireshark-common)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rest
}
