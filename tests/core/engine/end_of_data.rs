//! Rules that are decided at the end of a message: upstream receives it only once they accept.

use gatepost::engine::SessionRecord;
use gatepost::policy::PolicyAction;
use gatepost::policy::facts::{Lookup, LookupResult};
use gatepost::policy::rules::{FactName, PolicyRule, PolicyStage, RuleMode};

use crate::engine::dialogue::Dialogue;
use crate::engine::policy::{good, lame, nameless, rule, rules};
use crate::engine::sessions::{BYE, ENVELOPE, HELLO};

fn at_end() -> PolicyRule {
    PolicyRule { at: PolicyStage::Data, ..rule("named", FactName::Fcrdns, PolicyAction::Reject) }
}

fn run_with(
    rule_set: Vec<PolicyRule>,
    text: &str,
    oracle: fn(&Lookup) -> LookupResult,
) -> SessionRecord {
    Dialogue::new(text).with(rules(rule_set)).answered_by(oracle).run()
}

fn run(text: &str, oracle: fn(&Lookup) -> LookupResult) -> SessionRecord {
    run_with(vec![at_end()], &[HELLO, ENVELOPE, text].concat(), oracle)
}

const NO_NAME: &str = "5.7.25 client address 2001:db8::1 has no PTR record (rule \"named\")";

const UNKNOWN: &str = "T 30s
    +C 451 4.7.25 cannot confirm the PTR name of 2001:db8::1 right now (rule \"named\")
    C- QUIT
    +C 221 2.0.0 Bye
    = quit";

#[test]
fn an_accepted_message_ends_as_the_client_ended_it() {
    let text = r"C: DATA
        S: 354 go
        C: Subject: x
        C: \
        C: ..dot
        C: .
        S: 250 queued
        C| MAIL FROM:<>
        S: 250 m
        C| RCPT TO:<b@b.example>
        S: 250 r
        C| DATA
        S: 354 go
        C: .
        S: 250 second
        ";
    let record = run(&[text, BYE].concat(), good);
    assert_eq!(record.verdict.action, PolicyAction::Accept);
    let codes: Vec<_> =
        record.smtp.transactions.iter().map(|one| (one.data_code, one.bytes)).collect();
    assert_eq!(codes, [(Some(250), 19), (Some(250), 0)]);
    assert_eq!(record.questions.len(), 4, "RCPT and the end, twice");
}

#[test]
fn upstream_never_receives_the_end_of_a_rejected_message() {
    for (oracle, reply) in [
        (nameless as fn(&Lookup) -> LookupResult, format!("550 {NO_NAME}")),
        (
            lame,
            "451 4.7.25 cannot confirm the PTR name of 2001:db8::1 right now (rule \"named\")"
                .into(),
        ),
    ] {
        let text = format!(
            r"C: DATA
            S: 354 go
            C: Subject: x
            C: \
            C: text
            C- .
            +C {reply}
            C- QUIT
            +C 221 2.0.0 Bye
            = quit",
        );
        let record = run(&text, oracle);
        assert!(record.verdict.action >= PolicyAction::Tempfail);
        assert_eq!(record.verdict.rule.as_deref(), Some("named"));
        let code = reply[..3].parse().ok();
        assert_eq!(record.smtp.transactions[0].data_code, code);
    }
}

#[test]
fn the_next_command_after_a_rejected_message_is_deferred() {
    let text = format!(
        "C: DATA\nS: 354 go\nC: x\nC- .\n+C 550 {NO_NAME}\nC|- MAIL FROM:<>\n+C 421 4.3.2 gate.example only QUIT was \
         expected; closing\n= protocol"
    );
    run(&text, nameless);
}

#[test]
fn the_end_in_chunks_is_a_chunk_of_its_own() {
    let text = r"C: BDAT 3
        C| abc\
        S: 250 3 octets
        C- BDAT 4 LAST
        +S BDAT 4
        C: defg\
        S- 250 4 octets
        +S BDAT 0 LAST
        --
        S: 250 queued
        C| MAIL FROM:<>
        S: 250 m
        C: RCPT TO:<b@b.example>
        S: 250 r
        C: BDAT 0 LAST
        S: 250 queued
        ";
    let record = run(&[text, BYE].concat(), good);
    let transactions = record.smtp.transactions;
    assert_eq!((transactions[0].data_code, transactions[0].bytes), (Some(250), 7));
    assert!(transactions[0].chunking);
}

#[test]
fn a_rejected_message_in_chunks_has_no_last_chunk() {
    let text = format!(
        r"C- BDAT 4 LAST
        +S BDAT 4
        C: defg\
        +C 550 {NO_NAME}
        C- QUIT
        +C 221 2.0.0 Bye
        = quit"
    );
    let record = run(&text, nameless);
    assert_eq!(record.smtp.transactions[0].data_code, Some(550));
    let text = format!("C- BDAT 0 LAST\n+C 550 {NO_NAME}\nC- QUIT\n+C 221 2.0.0 Bye\n= quit");
    run(&text, nameless);
}

#[test]
fn a_chunk_that_upstream_rejects_is_the_end() {
    let text = "C- BDAT 4 LAST\n+S BDAT 4\nC: defg\\\nS: 552 5.3.4 too big\nC: RSET\nS: 250 ok\n";
    let record = run(&[text, BYE].concat(), good);
    assert_eq!(record.smtp.transactions[0].data_code, Some(552));
}

#[test]
fn a_message_that_upstream_rejected_before_its_end_is_not_decided() {
    for oracle in [good as fn(&Lookup) -> LookupResult, nameless] {
        let text = "C: DATA\nS: 354 go\nC: x\nS: 552 5.3.4 too big\nC: .\nC: RSET\nS: 250 ok\n";
        let record = run(&[text, BYE].concat(), oracle);
        assert_eq!(record.smtp.transactions[0].data_code, Some(552));
        assert_eq!(record.verdict.action, PolicyAction::Accept);
    }
}

#[test]
fn a_recipient_with_other_rules_gets_a_message_of_its_own() {
    let text = r"C: MAIL FROM:<a@a.example>
        S: 250 m
        C: RCPT TO:<b@b.example>
        S: 250 b
        C- RCPT TO:<postmaster@b.example>
        +C 452 4.5.3 other rules apply to this recipient; send it the message separately
        C: RCPT TO:<c@b.example>
        S: 250 c
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@a.example>
        S: 250 m
        C: RCPT TO:<postmaster@b.example>
        S: 250 p
        C: DATA
        S: 354 go
        C: x
        C: .
        S: 250 queued
        ";
    let record = run_with(vec![at_end()], &[HELLO, text, BYE].concat(), nameless);
    assert_eq!(record.verdict.action, PolicyAction::Accept);
}

#[test]
fn in_shadow_mode_the_message_passes_and_the_match_is_recorded() {
    let shadow = PolicyRule { mode: RuleMode::Shadow, ..at_end() };
    let text = "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 queued\n";
    let record = run_with(vec![shadow], &[HELLO, ENVELOPE, text, BYE].concat(), nameless);
    assert_eq!(record.verdict.action, PolicyAction::Accept);
    assert_eq!(record.verdict.shadow.len(), 1);
}

#[test]
fn upstream_lost_before_the_decision_does_not_change_it() {
    let lost = "S.\n+C 421 4.4.2 gate.example connection to the mail server was lost; try again later\n= upstream_closed";
    run(&format!("C: DATA\nS: 354 go\nC: x\nC: .\n{lost}"), good);
    let undecided = format!("C: DATA\nS: 354 go\nC: x\nC- .\n--\nS.\n{UNKNOWN}");
    let dialogue = [HELLO, ENVELOPE, &undecided].concat();
    Dialogue::new(&dialogue).with(rules(vec![at_end()])).run();
}

#[test]
fn without_answers_the_decision_has_a_deadline() {
    let text = format!("C: DATA\nS: 354 go\nC: x\nC- .\n--\n{UNKNOWN}");
    let dialogue = [HELLO, ENVELOPE, &text].concat();
    Dialogue::new(&dialogue).with(rules(vec![at_end()])).run();
}

#[test]
fn each_message_in_chunks_has_its_trace_field() {
    let field = "Received: from a.example ([IPv6:2001:db8::1]) by gate.example with ESMTP;\r\n\
                 \tFri, 02 Jan 2026 03:04:05 +0000";
    let envelope = "C: MAIL FROM:<a@a.example>\nS: 250 m\nC: RCPT TO:<b@b.example>\nS: 250 r\n";
    let (empty, four) = (field.len() + 2, field.len() + 6);
    let escaped = field.replace("\r\n", "\\r\\n").replace('\t', "\\t");
    let text = format!(
        "{HELLO}{envelope}\
         C- BDAT 4 LAST\n+S BDAT {four}\n+S {escaped}\nC: defg\\\nS- 250 chunk\n+S BDAT 0 LAST\n--\nS: 250 queued\n\
         {envelope}\
         C- BDAT 0 LAST\n+S BDAT {empty}\n+S {escaped}\nS- 250 chunk\n+S BDAT 0 LAST\n--\nS: 250 queued\n{BYE}"
    );
    let record = Dialogue::new(&text)
        .with(rules(vec![at_end()]))
        .with(|profile| profile.trace_header = true)
        .answered_by(good)
        .run();
    let bytes: Vec<u64> = record.smtp.transactions.iter().map(|one| one.bytes).collect();
    assert_eq!(bytes, [4, 0]);
}
