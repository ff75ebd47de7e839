//! Findings where this host's network, or its place, limits what the check can see.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Zone, faults, request};
use crate::addr::Family;
use crate::readiness::{
    CheckReport, CheckRequest, ConnectResult, Control, HostInterface, OutsideResult, OutsideView,
    Survey,
};

const MX6: &str = "2001:db8::25";
const MX4: &str = "192.0.2.25";
const CONTROL6: &str = "2001:db8:c::25";
const SILENT: ConnectResult = ConnectResult::NoResponse(Duration::from_secs(10));

struct Scene {
    zone: Zone,
    request: CheckRequest,
}

impl Scene {
    fn new() -> Self {
        Self { zone: Zone::new(""), request: request() }
    }

    fn reached(mut self, mx: &str, result: ConnectResult) -> Self {
        self.zone.surveys.insert(mx.parse().unwrap(), Survey::only(result));
        self
    }

    fn control(mut self, ip: &str, result: ConnectResult) -> Self {
        self.request.controls.push(Control::Address(ip.parse().unwrap()));
        self.zone.controls.insert(ip.parse().unwrap(), result);
        self
    }

    fn on_the_exchange(mut self) -> Self {
        let addresses = [MX6, MX4].map(|ip| format!("{ip}/{}", if ip == MX6 { 64 } else { 24 }));
        self.request.interfaces.push(HostInterface {
            name: "mx".to_owned(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            unsuitable: BTreeMap::new(),
            mtu: Some(1500),
        });
        self
    }

    fn outside(mut self, v6: OutsideView, v4: OutsideView) -> Self {
        self.request.vantage = Some("[2001:db8:9::9]:9626".parse().unwrap());
        self.zone.outside = [(Family::Ipv6, v6), (Family::Ipv4, v4)].into();
        self
    }

    fn report(&self) -> CheckReport {
        self.zone.evaluate(&self.request)
    }

    fn faults(&self) -> String {
        faults(&self.report())
    }
}

fn seen(ip: &str, result: OutsideResult) -> OutsideView {
    OutsideView::Seen(vec![(ip.parse().unwrap(), result)])
}

fn greeted(ip: &str) -> OutsideView {
    seen(ip, OutsideResult::Greeted)
}

#[test]
fn silence_is_a_fault_only_if_connections_leave_this_network() {
    let connected = ConnectResult::Connected(Duration::from_millis(3));
    let silent6 = || Scene::new().reached(MX6, SILENT);
    assert_eq!(silent6().faults(), "unknown smtp_connect");
    assert_eq!(
        silent6().control(CONTROL6, connected).faults(),
        "fail smtp_families, fail smtp_connect"
    );
    for result in [SILENT, ConnectResult::Refused] {
        let blocked = silent6().control(CONTROL6, result).report();
        assert_eq!(faults(&blocked), "unknown smtp_connect");
        let finding = blocked.findings.iter().find(|one| one.seen.contains("not reached")).unwrap();
        assert!(finding.seen.contains("this host's network blocks port 25 over IPv6"));
        assert!(!finding.advice.as_deref().unwrap().to_lowercase().contains("remove"));
    }
    // A control of the other family says nothing.
    assert_eq!(silent6().control("192.0.2.99", connected).faults(), "unknown smtp_connect");
    // An exchange is no control of itself.
    assert_eq!(silent6().control(MX6, SILENT).faults(), "unknown smtp_connect");
    let unclear = silent6().control(MX6, SILENT).report();
    assert!(!unclear.findings.iter().any(|one| one.seen.contains("blocks port 25")));
    // One that answers suffices.
    let both = silent6().control("2001:db8:c::26", SILENT).control(CONTROL6, connected);
    assert_eq!(both.faults(), "fail smtp_families, fail smtp_connect");
    // A RST may come from a filter of this network.
    let refused = || Scene::new().reached(MX6, ConnectResult::Refused);
    assert_eq!(refused().faults(), "fail smtp_families, fail smtp_connect");
    assert_eq!(refused().control(CONTROL6, SILENT).faults(), "unknown smtp_connect");
}

#[test]
fn a_closed_door_is_named() {
    let mut scene = Scene::new().reached(MX6, ConnectResult::Refused);
    scene.request.behind_gateway = crate::addr::Networks::new(["2001:db8::/64".parse().unwrap()]);
    scene.request.closed_doors.insert(Family::Ipv6, "probes fail".to_owned());
    let report = scene.report();
    assert_eq!(faults(&report), "fail smtp_connect");
    let finding = report
        .findings
        .iter()
        .find(|one| one.check.as_str() == "smtp_connect" && one.seen.contains("door"))
        .unwrap();
    assert_eq!(finding.seen, "gatepost's door is closed for IPv6: probes fail");
    // It lets this host through, and refuses others.
    scene.zone.surveys.insert(MX6.parse().unwrap(), super::good_survey());
    assert_eq!(scene.faults(), "fail smtp_connect");
    // Exchanges of others are not behind it.
    let mut scene = Scene::new();
    scene.request.closed_doors.insert(Family::Ipv6, "probes fail".to_owned());
    assert_eq!(scene.faults(), "");
}

#[test]
fn an_exchange_is_not_reached_from_outside_by_itself() {
    let own = || Scene::new().on_the_exchange();
    assert_eq!(own().faults(), "unknown smtp_reach, unknown smtp_reach");
    assert_eq!(own().outside(greeted(MX6), greeted(MX4)).faults(), "");
    let filtered = OutsideResult::NotReached("no response".to_owned());
    let report = own().outside(seen(MX6, filtered), greeted(MX4)).report();
    assert_eq!(faults(&report), "fail smtp_reach");
    let finding = report.findings.iter().find(|one| one.check.as_str() == "smtp_reach").unwrap();
    assert!(
        finding.seen.ends_with("(no response), only from inside this host"),
        "{}",
        finding.seen
    );
    // It knows other addresses, or nothing.
    let elsewhere = own().outside(greeted("2001:db8::26"), greeted(MX4));
    assert_eq!(elsewhere.faults(), "unknown smtp_reach");
    let failed = OutsideView::Failed("the vantage at x did not answer in time".to_owned());
    assert_eq!(own().outside(failed, greeted(MX4)).faults(), "unknown smtp_reach");
}

#[test]
fn what_a_vantage_sees_counts_beside_what_is_seen_here() {
    let silent6 = || Scene::new().reached(MX6, SILENT);
    let unreachable = seen(MX6, OutsideResult::NotReached("no response".to_owned()));
    assert_eq!(
        silent6().outside(unreachable, greeted(MX4)).faults(),
        "fail smtp_reach, unknown smtp_connect"
    );
    assert_eq!(silent6().outside(greeted(MX6), greeted(MX4)).faults(), "unknown smtp_connect");
}
