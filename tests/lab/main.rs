//! Tests with real peers (Postfix, Exim, Knot, Prometheus, Chromium, tshark), most of them in network namespaces.
//!
//! `make test` installs the programs and runs the tests as root. What a test lacks makes it ignored, with the reason: see
//! `harness`. A new test goes into the `tests!` list of its file, a new file's list into `main`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy excuses test functions, not the functions that they call"
)]

mod authentication;
mod canary;
mod capture_files;
mod captures;
mod dashboards;
mod dkim;
mod docs;
mod domain_check;
mod door;
mod door_evidence;
mod door_mail;
mod harness;
mod intercept;
mod intercept_check;
mod intercept_watch;
mod live_source;
mod mail_log;
mod metrics;
mod mutated_captures;
mod outbound;
mod packaging;
mod postfix_policy;
mod reachable;
mod record;
mod reenactment;
mod relay;
mod routers;
mod shared_captures;
mod soak;
mod status;
mod support;
mod watch;
mod wire_tshark;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(&[
        canary::TESTS,
        canary::failing_writes::TESTS,
        canary::gateway::TESTS,
        canary::outbound::TESTS,
        canary::restart::TESTS,
        capture_files::TESTS,
        captures::TESTS,
        captures::record::dialogues::TESTS,
        captures::record::families::TESTS,
        captures::record::gateway::TESTS,
        captures::record::incomplete::TESTS,
        dashboards::live::TESTS,
        dashboards::promtool::TESTS,
        dkim::TESTS,
        docs::TESTS,
        domain_check::TESTS,
        domain_check::dnsbl::TESTS,
        domain_check::dnssec::TESTS,
        domain_check::monitoring::TESTS,
        domain_check::mta_sts::TESTS,
        domain_check::log_filter::TESTS,
        domain_check::own_network::TESTS,
        domain_check::postfix::TESTS,
        domain_check::recipients::TESTS,
        door::TESTS,
        door_evidence::TESTS,
        door_mail::TESTS,
        intercept::TESTS,
        intercept_check::TESTS,
        intercept_watch::TESTS,
        live_source::TESTS,
        mail_log::TESTS,
        mail_log::journal::TESTS,
        metrics::TESTS,
        mutated_captures::TESTS,
        outbound::comparison::TESTS,
        outbound::dsn_filter::TESTS,
        outbound::evidence::TESTS,
        outbound::failures::TESTS,
        outbound::install::TESTS,
        outbound::pins::TESTS,
        outbound::resets::TESTS,
        packaging::TESTS,
        packaging::examples::TESTS,
        packaging::rights::TESTS,
        packaging::service::TESTS,
        packaging::systemd::TESTS,
        postfix_policy::authentication::TESTS,
        postfix_policy::fail_open::TESTS,
        postfix_policy::install::TESTS,
        postfix_policy::joined::TESTS,
        postfix_policy::load::TESTS,
        postfix_policy::table::TESTS,
        authentication::TESTS,
        reachable::TESTS,
        reachable::load::TESTS,
        reachable::memory::TESTS,
        reachable::path::TESTS,
        record::TESTS,
        reenactment::TESTS,
        relay::access::TESTS,
        relay::client_certificate::TESTS,
        relay::client_name::TESTS,
        relay::delivery::TESTS,
        relay::identity::TESTS,
        relay::limits::TESTS,
        relay::listeners::TESTS,
        relay::load::TESTS,
        relay::open_relay::TESTS,
        relay::mta_checks::TESTS,
        relay::passthrough::TESTS,
        relay::paths::TESTS,
        relay::postscreen::TESTS,
        relay::proxied::TESTS,
        relay::recovery::TESTS,
        relay::smuggling::TESTS,
        relay::starttls::TESTS,
        relay::submission::TESTS,
        relay::tls::TESTS,
        relay::tls_after_failures::TESTS,
        relay::tls_hostile::TESTS,
        relay::tls_peers::TESTS,
        relay::tls_renewal::TESTS,
        relay::tls_scanners::TESTS,
        relay::trace_header::TESTS,
        relay::upstream::TESTS,
        relay::upstream_lost::TESTS,
        relay::upstream_names::TESTS,
        relay::upstream_sockets::TESTS,
        relay::upstream_tls::TESTS,
        routers::TESTS,
        routers::path_mtu::TESTS,
        routers::ports::TESTS,
        routers::uplinks::TESTS,
        shared_captures::TESTS,
        soak::TESTS,
        status::TESTS,
        watch::TESTS,
        watch::leftovers::TESTS,
        watch::load::TESTS,
        watch::many_interfaces::TESTS,
        watch::order::TESTS,
        watch::own_addresses::TESTS,
        watch::rights::TESTS,
        watch::view::TESTS,
        wire_tshark::TESTS,
    ])
}
