//! Unsigned messages: SPF and DMARC by the records of the domains. Signatures are in `dkim::tests` and in the lab.

use super::spf::{SpfArguments, SpfLevel, spf};
use super::*;
use crate::dkim::{DkimLimits, MessageVerifier};
use crate::policy::facts::dmarc::{DmarcCheck, DmarcPolicy, dmarc};

const PASS: &str = "v=spf1 ip6:2001:db8::/32 -all";

/// A message with this From field, or without one.
fn message(from: &str) -> ReceivedMessage {
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    if !from.is_empty() {
        verifier.write(format!("From: {from}\r\n").as_bytes());
    }
    verifier.write(b"Subject: x\r\n\r\nbody\r\n");
    ReceivedMessage { content: verifier.finish(), at: Timestamp::from_nanos(1) }
}

/// Evaluates with these TXT records, `NAME TEXT` a line; the text `servfail` is no answer. A name with the text `exists` has an
/// address, and no other has one.
fn evaluate(zone: &str, fact: impl Fn(&Answers) -> Evaluation) -> String {
    let lines = || zone.lines().filter_map(|line| line.trim().split_once(' '));
    let texts = |owner: &DomainName| -> Vec<&str> {
        lines().filter(|(one, _)| name(one) == *owner).map(|(_, text)| text).collect()
    };
    let mut known = Answers::default();
    for _ in 0..10 {
        let missing = match fact(&known) {
            Evaluation::NeedsLookups(missing) => missing,
            Evaluation::Known(Fact { state, reason, .. }) => {
                return [Some(state.as_str()), reason.map(Reason::as_str)]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ");
            }
        };
        assert!(!missing.is_empty());
        for lookup in missing {
            let answer = match &lookup {
                Lookup::Texts(owner) => match texts(owner).as_slice() {
                    ["servfail"] => Answer::Unknown(Reason::Servfail),
                    [] => Answer::NxDomain,
                    texts => {
                        let record = |text: &&str| DnsRecord::Text(text.as_bytes().to_vec());
                        Answer::Records(texts.iter().map(record).collect())
                    }
                },
                Lookup::Addresses(owner, Family::Ipv6) if texts(owner) == ["exists"] => {
                    Answer::Records(vec![DnsRecord::Address(ip("2600::1"))])
                }
                Lookup::Addresses(..) | Lookup::MailExchanges(_) => Answer::NoData,
                other => panic!("{other:?}"),
            };
            known.insert(lookup, LookupResult { answer, source: Source::Zone, at: None });
        }
    }
    panic!("no end of lookups")
}

fn dmarc_with(zone: &str, from: &str, sender: &str, policy: DmarcPolicy) -> String {
    let message = message(from);
    let spf = SpfArguments { client: ip(CLIENT), helo: "mta.a.example", sender };
    evaluate(zone, |known| dmarc(&DmarcCheck { spf, message: Some(&message), policy }, known))
}

fn dmarc_of(zone: &str, from: &str, sender: &str) -> String {
    dmarc_with(zone, from, sender, DmarcPolicy::Quarantine)
}

#[test]
fn spf_aligns_exactly_or_by_the_organisational_domain() {
    let zone = |record: &str| {
        format!(
            "_dmarc.a.example {record}\na.example {PASS}\nb.a.example {PASS}\nother.example {PASS}"
        )
    };
    for (record, from, sender, expected) in [
        ("v=DMARC1; p=reject", "x@a.example", "x@a.example", "true"),
        ("v=DMARC1; p=reject", "x@a.example", "x@b.a.example", "true"),
        ("v=DMARC1; p=reject", "x@b.a.example", "x@a.example", "true"),
        ("v=DMARC1; p=reject; aspf=s", "x@a.example", "x@a.example", "true"),
        ("v=DMARC1; p=reject; aspf=s", "x@a.example", "x@b.a.example", "false dmarc_policy_reject"),
        ("v=DMARC1; p=reject", "x@a.example", "x@other.example", "false dmarc_policy_reject"),
        // SPF has no record there.
        ("v=DMARC1; p=reject", "x@a.example", "x@c.a.example", "false dmarc_policy_reject"),
        // The HELO name stands for the null sender.
        ("v=DMARC1; p=reject", "x@a.example", "", "false dmarc_policy_reject"),
    ] {
        assert_eq!(dmarc_of(&zone(record), from, sender), expected, "{record} {from} <{sender}>");
    }
    let helo = format!("{}\nmta.a.example {PASS}", zone("v=DMARC1; p=reject"));
    assert_eq!(dmarc_of(&helo, "x@a.example", ""), "true");
}

#[test]
fn the_policy_is_that_of_the_domain_of_its_subdomains_or_of_missing_ones() {
    let sub = "v=DMARC1; p=reject; sp=quarantine; np=none";
    for (record, from, expected) in [
        ("v=DMARC1; p=reject", "x@a.example", "false dmarc_policy_reject"),
        ("v=DMARC1; p=quarantine", "x@a.example", "false dmarc_policy_quarantine"),
        ("v=DMARC1; p=none", "x@a.example", "true"),
        ("v=DMARC1; p=reject; t=y", "x@a.example", "false dmarc_policy_quarantine"),
        ("v=DMARC1; p=quarantine; t=y", "x@a.example", "true"),
        ("v=DMARC1; p=reject; pct=0", "x@a.example", "false dmarc_policy_quarantine"),
        ("v=DMARC1; p=reject; pct=50", "x@a.example", "false dmarc_policy_reject"),
        (sub, "x@here.a.example", "false dmarc_policy_quarantine"),
        (sub, "x@gone.a.example", "true"),
        ("v=DMARC1; p=none; sp=reject", "x@here.a.example", "false dmarc_policy_reject"),
        ("v=spf1 -all", "x@a.example", "true"),
    ] {
        let zone = format!("_dmarc.a.example {record}\nhere.a.example exists");
        assert_eq!(dmarc_of(&zone, from, "x@other.example"), expected, "{record} {from}");
    }
}

#[test]
fn the_requirement_names_the_weakest_policy_that_counts() {
    use DmarcPolicy::{None, Quarantine, Reject};
    for (record, required, expected) in [
        ("p=none", None, "false dmarc_policy_none"),
        ("p=none", Quarantine, "true"),
        ("p=quarantine", Quarantine, "false dmarc_policy_quarantine"),
        ("p=quarantine", Reject, "true"),
        ("p=reject", Reject, "false dmarc_policy_reject"),
    ] {
        let zone = format!("_dmarc.a.example v=DMARC1; {record}");
        let state = dmarc_with(&zone, "x@a.example", "x@other.example", required);
        assert_eq!(state, expected, "{record} {required}");
    }
}

#[test]
fn every_author_counts() {
    let zone = format!(
        "_dmarc.a.example v=DMARC1; p=reject\na.example {PASS}\n_dmarc.strict.example v=DMARC1; p=reject"
    );
    for (from, expected) in [
        ("x@a.example, y@free.example", "true"),
        ("x@a.example, y@strict.example", "false dmarc_policy_reject"),
        ("y@strict.example, x@a.example", "false dmarc_policy_reject"),
        ("", "false no_author_domain"),
        ("undisclosed:;", "false no_author_domain"),
        (
            "a@a1.example, b@b1.example, c@c1.example, d@d1.example, e@e1.example",
            "false many_author_domains",
        ),
    ] {
        assert_eq!(dmarc_of(&zone, from, "x@a.example"), expected, "{from}");
    }
}

#[test]
fn a_failed_lookup_is_unknown_unless_it_cannot_matter() {
    for (zone, expected) in [
        ("_dmarc.a.example servfail", "unknown servfail"),
        ("_dmarc.a.example v=DMARC1; p=reject\na.example servfail", "unknown servfail"),
        // No policy that counts.
        ("_dmarc.a.example v=DMARC1; p=none\na.example servfail", "true"),
    ] {
        assert_eq!(dmarc_of(zone, "x@a.example", "x@a.example"), expected, "{zone}");
    }
    let unrelated = "_dmarc.a.example v=DMARC1; p=reject\nother.example servfail";
    assert_eq!(
        dmarc_of(unrelated, "x@a.example", "x@other.example"),
        "false dmarc_policy_reject",
        "SPF of another domain cannot align"
    );
}

#[test]
fn without_the_content_only_spf_is_known() {
    let spf = SpfArguments { client: ip(CLIENT), helo: "mta.a.example", sender: "x@a.example" };
    let zone = format!("a.example {PASS}\n_dmarc.a.example v=DMARC1; p=reject");
    let policy = DmarcPolicy::Quarantine;
    let of = |zone: &str, fact: &dyn Fn(&Answers) -> Evaluation| evaluate(zone, fact);
    assert_eq!(
        of(&zone, &|known| dmarc(&DmarcCheck { spf, message: None, policy }, known)),
        "unknown content_not_seen"
    );
    assert_eq!(of(&zone, &|known| dkim(None, known)), "unknown content_not_seen");
    assert_eq!(of(&zone, &|known| authenticated(spf, None, known)), "true");
    assert_eq!(of("", &|known| authenticated(spf, None, known)), "unknown content_not_seen");
    let unsigned = message("x@a.example");
    assert_eq!(of(&zone, &|known| authenticated(spf, Some(&unsigned), known)), "true");
    assert_eq!(
        of("", &|known| authenticated(spf, Some(&unsigned), known)),
        "false not_authenticated"
    );
    assert_eq!(
        of("a.example servfail", &|known| authenticated(spf, Some(&unsigned), known)),
        "unknown servfail"
    );
    assert_eq!(of("", &|known| dkim(Some(&unsigned), known)), "false dkim_none");
}

#[test]
fn the_level_of_spf_decides_on_results_between_pass_and_fail() {
    for (record, pass, not_fail) in [
        (PASS, "true", "true"),
        ("v=spf1 ~all", "false spf_softfail", "true"),
        ("v=spf1 ?all", "false spf_neutral", "true"),
        ("no record", "false spf_none", "true"),
        ("v=spf1 -all", "false spf_fail", "false spf_fail"),
        ("v=spf1 nonsense", "false spf_permerror", "false spf_permerror"),
        ("servfail", "unknown servfail", "unknown servfail"),
    ] {
        let zone = format!("a.example {record}");
        let arguments =
            SpfArguments { client: ip(CLIENT), helo: "mta.a.example", sender: "x@a.example" };
        let of = |level| evaluate(&zone, |known| spf(arguments, level, known));
        let states = (of(SpfLevel::Pass), of(SpfLevel::NotFail));
        assert_eq!(states, (pass.to_owned(), not_fail.to_owned()), "{record}");
    }
}
