//! Every expression against a gateway to which everything happened, by way of Prometheus: none is wrong, none is empty, and
//! none shows nothing but zeros without a reason.

use std::collections::BTreeSet;

use super::board::boards;
use super::prometheus::{Prometheus, Series};
use super::rules::rules;
use super::scenario::Scenario;
use super::selectors::{Selector, selectors};
use crate::harness::tests;
use crate::support::Lab;

tests![every_expression_shows_something_and_every_name_in_it_exists];

/// What stays at zero where nobody reads too slowly, without gateways that share a store, and in so short a time (CPU is told
/// in whole seconds). It must be there all the same.
const MAY_BE_ZERO: [&str; 9] = [
    "gatepost_capture_dropped_total",
    "gatepost_flows_evicted_total",
    "gatepost_log_lines_dropped_total",
    "gatepost_lookups_renewed_total",
    "gatepost_lookups_taken_over_total",
    "gatepost_lookups_under_way",
    "gatepost_reach_store_up",
    "gatepost_record_omitted_octets_total",
    "process_cpu_seconds_total",
];

/// Only eBPF knows these.
const ROUND_TRIPS: &str = "gatepost_tcp_rtt_seconds";

/// With what Grafana puts in place of its variables.
fn substituted(expr: &str, job: &str) -> String {
    let expr = expr.replace("$job", job).replace("$instance", ".*");
    expr.replace("$__rate_interval", "1m").replace("$__range", "1m")
}

/// What is wrong with a result, if anything.
fn complaint(name: &str, expr: &str, result: Result<Vec<Series>, String>) -> Option<String> {
    let told = |what: &str| Some(format!("{name}: {what}\n    {expr}"));
    let series = match result {
        Err(error) => return told(&error),
        Ok(series) => series,
    };
    let values = || series.iter().flat_map(|series| &series.values);
    let may_be_zero =
        selectors(expr).iter().all(|selector| MAY_BE_ZERO.contains(&selector.metric.as_str()));
    if values().next().is_none() {
        told("nothing")
    } else if !values().all(|value| value.is_finite()) {
        told("what is no number")
    } else if !may_be_zero && values().all(|value| *value == 0.0) {
        told("nothing but zeros")
    } else {
        None
    }
}

fn every_expression_shows_something_and_every_name_in_it_exists() {
    let lab = Lab::new();
    let mut scenario = Scenario::new(&lab);
    let prometheus = Prometheus::start(&lab);
    scenario.pass(&prometheus);

    let mut wrong = Vec::new();
    let mut meant: BTreeSet<String> = BTreeSet::new();
    for (name, expr) in boards().iter().flat_map(|board| board.expressions()) {
        meant.extend(selectors(&substituted(&expr, ".*")).iter().flat_map(Selector::each_meant));
        if expr.contains(ROUND_TRIPS) && !scenario.watches_by_ebpf() {
            continue;
        }
        // Where the gateway has nothing to show, the recordings have.
        let complaints = ["gatepost", "recorded"].map(|job| {
            let expr = substituted(&expr, job);
            complaint(&name, &expr, prometheus.over_time(&expr))
        });
        if let [Some(live), Some(_)] = complaints {
            wrong.push(live);
        }
    }
    for rule in rules() {
        meant.extend(selectors(&rule.expr).iter().flat_map(Selector::each_meant));
        let result = prometheus.over_time(&rule.expr);
        match rule.alert {
            // Most of them do not fire, as it should be.
            Some(_) => wrong.extend(result.err().map(|error| format!("{}: {error}", rule.name))),
            None => wrong.extend(complaint(&rule.name, &rule.expr, result)),
        }
    }
    for selector in meant {
        let found = prometheus.over_time(&selector);
        if found.as_ref().map_or(true, Vec::is_empty) {
            wrong.push(format!("nothing is called {selector}: {:?}", found.err()));
        }
    }
    for rule in prometheus.rules() {
        if rule["health"] != "ok" {
            wrong.push(format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"]));
        }
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let said = alert["annotations"].to_string();
            if said.contains("error expanding") || said.contains("<no value>") {
                wrong.push(format!("{}: {said}", rule["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
