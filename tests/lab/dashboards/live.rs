//! Every expression, evaluated by Prometheus against a gateway that went through every kind of event: no error, no empty
//! result, no unexpected zeros.

use std::collections::BTreeSet;

use super::board::boards;
use super::prometheus::{Prometheus, Series};
use super::rules::rules;
use super::scenario::Scenario;
use super::selectors::{Selector, selectors};
use crate::harness::tests;
use crate::support::Lab;

tests![every_expression_has_a_result_and_every_series_in_it_exists];

/// May stay at zero: nothing is too slow, lacks a descriptor, is damaged or missing, there is no Redis, and the test is short
/// (CPU time counts whole seconds). The series must exist.
const MAY_BE_ZERO: [&str; 30] = [
    "gatepost_accept_errors_total",
    "gatepost_canary_messages_total",
    "gatepost_capture_dropped_total",
    "gatepost_flows_evicted_total",
    "gatepost_intercept_bypassed_packets_total",
    "gatepost_intercept_lost_syns_total",
    "gatepost_intercept_repairs_total",
    "gatepost_log_lines_dropped_total",
    "gatepost_lookup_cache_damaged_total",
    "gatepost_lookup_redis_up",
    "gatepost_lookups_in_flight",
    "gatepost_lookups_refreshed_total",
    "gatepost_lookups_shared_total",
    "gatepost_mail_missing",
    "gatepost_outbound_answers_total",
    "gatepost_outbound_attempts_total",
    "gatepost_outbound_connection_seconds",
    "gatepost_outbound_hosts",
    "gatepost_outbound_log_lines_total",
    "gatepost_outbound_log_up",
    "gatepost_outbound_messages_to_return",
    "gatepost_outbound_retries_total",
    "gatepost_outbound_transmission_seconds",
    "gatepost_policy_connections_closed_total",
    "gatepost_record_omitted_bytes_total",
    "gatepost_starttls_hidden_clients_total",
    "gatepost_starttls_hidden_sessions_total",
    "gatepost_tls_reload_refused",
    "gatepost_upstream_names",
    "process_cpu_seconds_total",
];

/// Of gateways that have a vantage; these have none.
const VANTAGE: &str = "gatepost_vantage_up";

/// Of gateways that intercept; these are proxies.
const INTERCEPTION: &str = "gatepost_intercept_installed";

/// Of checked domains, for which `domain_check::monitoring` evaluates them.
const CHECKED_DOMAINS: &str = "gatepost_check_";

/// Available with eBPF only.
const ROUND_TRIPS: &str = "gatepost_tcp_rtt_seconds";

/// With values for Grafana's variables.
fn substituted(expr: &str, job: &str) -> String {
    let expr = expr.replace("$job", job).replace("$instance", ".*");
    expr.replace("$__rate_interval", "1m").replace("$__range", "1m")
}

/// The fault of a result, if any.
fn fault(name: &str, expr: &str, result: Result<Vec<Series>, String>) -> Option<String> {
    let fault = |what: &str| Some(format!("{name}: {what}\n    {expr}"));
    let series = match result {
        Err(error) => return fault(&error),
        Ok(series) => series,
    };
    let values = || series.iter().flat_map(|series| &series.values);
    let may_be_zero =
        selectors(expr).iter().all(|selector| MAY_BE_ZERO.contains(&selector.metric.as_str()));
    if values().next().is_none() {
        // Its series are looked for by themselves below.
        let only_shown_if_positive = may_be_zero && expr.ends_with(" > 0");
        if only_shown_if_positive { None } else { fault("no result") }
    } else if !values().all(|value| value.is_finite()) {
        fault("not a number")
    } else if !may_be_zero && values().all(|value| *value == 0.0) {
        fault("only zeros")
    } else {
        None
    }
}

fn every_expression_has_a_result_and_every_series_in_it_exists() {
    let lab = Lab::new();
    let mut scenario = Scenario::new(&lab);
    let prometheus = Prometheus::start(&lab);
    scenario.run(&prometheus);

    let mut faults = Vec::new();
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let boards = boards();
    let expressions = boards.iter().flat_map(|board| board.expressions());
    for (name, expr) in expressions.filter(|(_, expr)| !expr.contains(CHECKED_DOMAINS)) {
        expected
            .extend(selectors(&substituted(&expr, ".*")).iter().flat_map(Selector::alternatives));
        let is_absent = [VANTAGE, INTERCEPTION].iter().any(|metric| expr.contains(metric));
        if is_absent || expr.contains(ROUND_TRIPS) && !scenario.watches_by_ebpf() {
            continue;
        }
        // The recordings cover the events that the gateway lacks.
        let both = ["gatepost", "recorded"].map(|job| {
            let expr = substituted(&expr, job);
            fault(&name, &expr, prometheus.over_time(&expr))
        });
        if let [Some(live), Some(_)] = both {
            faults.push(live);
        }
    }
    for rule in rules() {
        let of_domains = rule.expr.contains(CHECKED_DOMAINS);
        if !of_domains {
            expected.extend(selectors(&rule.expr).iter().flat_map(Selector::alternatives));
        }
        let result = prometheus.over_time(&rule.expr);
        match rule.alert {
            // Most of them do not fire.
            Some(_) => faults.extend(result.err().map(|error| format!("{}: {error}", rule.name))),
            None => faults.extend(fault(&rule.name, &rule.expr, result)),
        }
    }
    for selector in expected {
        let found = prometheus.over_time(&selector);
        if found.as_ref().map_or(true, Vec::is_empty) {
            faults.push(format!("no series {selector}: {:?}", found.err()));
        }
    }
    for rule in prometheus.rules() {
        if rule["health"] != "ok" {
            faults.push(format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"]));
        }
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let annotations = alert["annotations"].to_string();
            if annotations.contains("error expanding") || annotations.contains("<no value>") {
                faults.push(format!("{}: {annotations}", rule["name"]));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
