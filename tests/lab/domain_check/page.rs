//! The example in docs/check.md is the real output.

use super::GATEPOST;
use super::postfix::configure;
use super::site::trusted;
use crate::support::Lab;
use crate::support::world::KNOT;

const PAGE: &str = include_str!("../../../docs/check.md");
/// The fault in the host's main.cf.
const FAULT: &str = "smtp_address_preference = ipv4";

/// Runs the command, with the lab's DNS server and a short timeout; it must print each line of the page, in that order.
pub(crate) fn matches_the_output(lab: &Lab) {
    let (_, block) = PAGE.split_once("```text\n$ ").unwrap();
    let (command, rest) = block.split_once('\n').unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let folder = lab.folder("page");
    configure(&folder, FAULT, "");
    let words = command.strip_prefix("gatepost ").unwrap().split(' ');
    let environment = format!("MAIL_CONFIG={}", folder.display());
    let trusted = format!("SSL_CERT_FILE={}", trusted(lab).display());
    let here = ["--dns", KNOT, "--timeout=4s"];
    let output = lab
        .gateway
        .output(["env", &environment, &trusted, GATEPOST].into_iter().chain(words).chain(here));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines = printed.lines();
    for line in shown.lines().filter(|line| !line.is_empty()) {
        assert!(
            lines.any(|one| one == line),
            "{line:?} is not printed, or before what is above it:\n{printed}"
        );
    }
}
