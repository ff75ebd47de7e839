//! A mail server outside, for the outbound mail of the one behind the gateway: smtp-sink on the client's host.

use std::fs;
use std::path::PathBuf;

use crate::support::{Family, Lab, Process, until};

/// The domain of its mailboxes in a family; [`TRANSPORTS`] leads there.
pub(super) fn domain(family: Family) -> String {
    format!("{family}.example.net")
}

/// For `main.cf` of the mail server behind.
pub(super) const TRANSPORTS: &str = "transport_maps = inline:{ \
     { ipv4.example.net = smtp:[192.0.2.10] }, { ipv6.example.net = smtp:[2001:db8:1::10] } }";

pub(super) struct OutsideServer {
    folder: PathBuf,
    _processes: [Process; 2],
}

impl OutsideServer {
    pub(super) fn start(lab: &Lab) -> Self {
        let folder = lab.folder("outside");
        let dump = format!("{}/message.", folder.display());
        let processes = Family::ALL.map(|family| {
            let at = format!("inet:[{}]:25", lab.client_ip(family));
            let words = ["smtp-sink", "-u", "root", "-d", &dump, &at, "100"];
            lab.client.spawn(words)
        });
        for family in Family::ALL {
            lab.client.wait_for_listener((lab.client_ip(family), 25).into());
        }
        Self { folder, _processes: processes }
    }

    /// Waits for the message to a recipient. Returns the address of the client that sent it.
    #[track_caller]
    pub(super) fn sender_of_message_to(&self, recipient: &str) -> String {
        until(format_args!("outbound mail to {recipient}"), || {
            let files = fs::read_dir(&self.folder).unwrap().flatten();
            let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
            let mut matching = texts.filter(|text| text.contains(recipient));
            let text = matching.next()?;
            let address = text.lines().find_map(|line| line.strip_prefix("X-Client-Addr: "))?;
            Some(address.trim_start_matches("ipv6:").to_owned())
        })
    }
}
