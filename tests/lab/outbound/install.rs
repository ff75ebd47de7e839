//! `gatepost postfix install`.

use super::destinations::{Destination, Sender, warnings};
use crate::harness::tests;
use crate::support::{Family, Lab};

tests![the_printed_commands_are_all_that_postfix_needs];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

fn the_printed_commands_are_all_that_postfix_needs() {
    let lab = Lab::new();
    let own = lab.path("own-filter");
    std::fs::write(&own, "").unwrap();
    let own = format!("texthash:{}", own.display());
    let sender = Sender::new(&lab, &format!("smtp_dns_reply_filter = {own}"));
    let refused = lab.gateway.output([GATEPOST, "postfix", "install"]);
    assert!(!refused.status.success());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("does not change the configuration of Postfix"), "{error}");

    sender.install();
    let _gateway = sender.gateway(&["pinned", "only6"]);
    let settings = sender.settings();
    let filter = format!("smtp_dns_reply_filter = socketmap:unix:private/gatepost-map:dns {own}\n");
    assert!(settings.contains(&filter), "{settings}");
    let line = sender.send("a", "pinned");
    assert!(line.contains(&Destination::of("pinned").relay(Family::Ipv4)), "{line}");
    assert!(line.contains("status=sent"), "{line}");
    let line = sender.send("a", "only6");
    assert!(line.contains(&Destination::of("only6").relay(Family::Ipv6)), "{line}");
    let line = sender.send("a", "unknown-over-ipv6");
    assert!(line.contains("status=bounced"), "{line}");
    let line = sender.send("a", "no-ptr-over-ipv6");
    assert!(line.contains("status=deferred (host mx."), "{line}");
    // Again it changes nothing.
    sender.install();
    assert_eq!(sender.settings(), settings);
    let log = sender.postfix.log();
    assert!(warnings(&log).is_empty(), "{log}");
}
