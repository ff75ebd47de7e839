//! The result of a pair of canaries, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::addr::Family;
use crate::canary::{CanaryOutcome, CanaryPair, CanaryStatus, Comparison, DeliveryStage, PairHalf};
use crate::humanize::short_duration;
use crate::report::printable;

/// One sentence about both messages.
pub fn sentence(comparison: Comparison, ipv4: CanaryOutcome, ipv6: CanaryOutcome) -> String {
    let treated = |outcome| match outcome {
        CanaryOutcome::Clean => "arrived without a mark",
        CanaryOutcome::AuthenticationFailed => "arrived with failed authentication",
        CanaryOutcome::MarkedSpam => "was marked as spam",
        CanaryOutcome::Deferred => "was deferred",
        CanaryOutcome::Refused => "was refused",
        CanaryOutcome::Unreachable => "met no mail server",
        CanaryOutcome::Lost => "was accepted and did not arrive",
        CanaryOutcome::Unknown => "has no known outcome",
    };
    let (four, six) = (treated(ipv4), treated(ipv6));
    match comparison {
        Comparison::Equal => format!("Both messages were treated alike: each {four}."),
        Comparison::Ipv6Worse => {
            format!(
                "IPv6 mail is treated worse: the message over IPv6 {six}, the one over IPv4 {four}."
            )
        }
        Comparison::Ipv4Worse => {
            format!(
                "IPv4 mail is treated worse: the message over IPv4 {four}, the one over IPv6 {six}."
            )
        }
        Comparison::Unknown => {
            format!(
                "Nothing can be compared: the message over IPv4 {four}, the one over IPv6 {six}."
            )
        }
    }
}

/// Of one pair. Without reports of the mailbox `comparison` is that of the deliveries.
pub fn text(pair: &CanaryPair, comparison: Comparison) -> String {
    let has_reports = Family::ALL.iter().any(|family| pair.half(*family).received.is_some());
    let are_accepted = Family::ALL.iter().all(|family| pair.half(*family).is_accepted());
    let mut text = match comparison {
        Comparison::Equal if !has_reports && are_accepted => {
            "Both messages were accepted; what became of them is not known without --reports."
                .to_owned()
        }
        _ => sentence(comparison, pair.ipv4.outcome(), pair.ipv6.outcome()),
    };
    let _never_fails = writeln!(text, "\n  pair {}", pair.id);
    for family in Family::ALL {
        for line in half_lines(family, pair, pair.half(family)) {
            let _never_fails = writeln!(text, "  {line}");
        }
    }
    text
}

fn half_lines(family: Family, pair: &CanaryPair, half: &PairHalf) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(delivery) = &half.delivery {
        let server = delivery.server.as_deref().unwrap_or("no server");
        let code = delivery.code.map(|code| format!("{code} ")).unwrap_or_default();
        let stage = match delivery.stage {
            DeliveryStage::Content => String::new(),
            stage => format!("{stage}: "),
        };
        let tls = if delivery.tls { ", TLS" } else { "" };
        let took = short_duration(delivery.took);
        let reply = printable(&format!("{code}{}", delivery.text));
        lines.push(format!("{family}  {stage}{reply} ({server}, {took}{tls})"));
    }
    if let Some((at, judgement)) = &half.received {
        let score = judgement.score.map(|score| format!(", score {score}")).unwrap_or_default();
        let after = short_duration(*at - pair.sent);
        lines.push(format!("{family}  received after {after}{score}"));
        for mark in &judgement.marks {
            let mark = printable(&format!("{}: {}: {}", mark.by, mark.field, mark.value));
            lines.push(format!("{family}  marked by {mark}"));
        }
    }
    lines
}

/// # Errors
/// None that is known; what the serializer returns.
pub fn json(pair: &CanaryPair, comparison: Comparison) -> serde_json::Result<String> {
    let half = |half: &PairHalf| -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(half)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("outcome".to_owned(), json!(half.outcome()));
            object.insert("marked_where".to_owned(), json!(half.marked_where()));
            if let Some(delivery) = object.get_mut("delivery").and_then(Value::as_object_mut) {
                let took = half.delivery.as_ref().map(|delivery| delivery.took.as_secs_f64());
                delivery.insert("took".to_owned(), json!(took));
            }
            if let Some((at, judgement)) = &half.received {
                let mut received = serde_json::to_value(judgement)?;
                if let Some(object) = received.as_object_mut() {
                    object.insert("at".to_owned(), json!(at));
                    let after = (*at - pair.sent).as_secs_f64();
                    object.insert("after".to_owned(), json!(after));
                }
                object.insert("received".to_owned(), received);
            }
        }
        Ok(value)
    };
    let object = json!({
        "pair": pair.id,
        "direction": pair.direction,
        "sent": pair.sent,
        "comparison": comparison,
        "ipv4": half(&pair.ipv4)?,
        "ipv6": half(&pair.ipv6)?,
    });
    Ok(format!("{object}\n"))
}

/// Of the latest pair of a direction, for the status page and as the detail of a sign.
pub fn detail(status: &CanaryStatus) -> String {
    let sentence = sentence(status.comparison, status.ipv4, status.ipv6);
    let sentence = sentence.trim_end_matches('.');
    match status.marked_by() {
        Some(mark) => format!("{sentence}; marked {}", printable(&mark)),
        None => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::canary::{
        CanaryDelivery, CanaryDirection, HeaderJudgement, Mark, PairId, SpamFilter,
    };
    use crate::time::Timestamp;

    fn pair() -> CanaryPair {
        let at = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let mut pair = CanaryPair::new(PairId::new([0xab; 8]), CanaryDirection::Inbound, at);
        for family in Family::ALL {
            pair.half_mut(family).delivery = Some(CanaryDelivery {
                stage: DeliveryStage::Content,
                server: Some(format!("mx.example.org {family}")),
                code: Some(250),
                text: "2.0.0 Ok\u{1b}".to_owned(),
                tls: family == Family::Ipv4,
                took: Duration::from_millis(84),
            });
        }
        pair
    }

    #[test]
    fn a_pair_is_one_sentence_and_the_facts() {
        let mut pair = pair();
        let accepted = "Both messages were accepted; what became of them is not known without --reports.\n  \
            pair abababababababab\n  \
            ipv4  250 2.0.0 Ok\\x1b (mx.example.org ipv4, 84 ms, TLS)\n  \
            ipv6  250 2.0.0 Ok\\x1b (mx.example.org ipv6, 84 ms)\n";
        assert_eq!(text(&pair, pair.comparison_of_deliveries()), accepted);
        let at = pair.sent + Duration::from_secs(2);
        pair.ipv4.received = Some((at, HeaderJudgement::default()));
        let (field, value) = ("X-Spam".to_owned(), "Yes".to_owned());
        let marks = vec![Mark { by: SpamFilter::Rspamd, field, value }];
        pair.ipv6.received = Some((at, HeaderJudgement { marks, score: None }));
        let found = text(&pair, pair.comparison());
        assert!(
            found.starts_with(
                "IPv6 mail is treated worse: the message over IPv6 was marked as spam, "
            ),
            "{found}"
        );
        assert!(
            found.ends_with("ipv6  received after 2.0 s\n  ipv6  marked by rspamd: X-Spam: Yes\n"),
            "{found}"
        );
        let json: Value = serde_json::from_str(&json(&pair, pair.comparison()).unwrap()).unwrap();
        assert_eq!(json["ipv6"]["outcome"], "marked_spam");
        assert_eq!(json["ipv6"]["received"]["after"], 2.0);
        assert_eq!(json["ipv6"]["delivery"]["took"], 0.084);
        assert_eq!(json["ipv4"]["received"]["marks"], json!([]));
    }
}
