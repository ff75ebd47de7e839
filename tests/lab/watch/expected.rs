//! The expected records of the test mail, at every place of capture. Every failed claim is a line.

use serde_json::Value;

use super::mail::SESSIONS;
use crate::support::Family;
use crate::support::watcher::WatchOutput;

/// Claims that failed.
#[derive(Default)]
pub(crate) struct Failed(pub(crate) Vec<String>);

impl Failed {
    pub(crate) fn unless(&mut self, claim: bool, what: impl FnOnce() -> String) {
        if !claim {
            self.0.push(what());
        }
    }

    /// Prefixes the claims that fail inside with `name`.
    pub(crate) fn about(&mut self, name: &str, claims: impl FnOnce(&mut Self)) {
        let mut inside = Self::default();
        claims(&mut inside);
        self.0.extend(inside.0.into_iter().map(|line| format!("{name}: {line}")));
    }

    /// The only session that matches.
    fn only<'a>(
        &mut self,
        output: &'a WatchOutput,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> &'a Value {
        let found: Vec<&Value> = output.of_type("session").filter(|s| wanted(s)).collect();
        self.unless(found.len() == 1, || format!("{what}: {} sessions: {found:?}", found.len()));
        found.first().copied().unwrap_or(&Value::Null)
    }

    fn equal(&mut self, what: &str, found: &Value, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        self.unless(*found == wanted, || format!("{what}: {found}, not {wanted}"));
    }
}

/// Checks the records of [`super::mail::TestMail::send_all`].
pub(crate) fn check(output: &WatchOutput, failed: &mut Failed) {
    for (family, sessions) in SESSIONS {
        let name = family.to_string();
        let seen = output.of_type("session").filter(|s| s["family"] == name.as_str()).count();
        failed.unless(seen == sessions, || format!("{name}: {seen} sessions, not {sessions}"));
        mail_of(family, output, failed);
    }
    for session in output.sessions() {
        let name = || format!("{}", session["client"]);
        failed.unless(session["tcp"]["gaps"] == 0, || format!("{}: gaps", name()));
        let smtp = &session["smtp"];
        failed.unless(smtp["desyncs"] == 0 && smtp["resyncs"] == 0, || {
            format!("{}: desync: {smtp}", name())
        });
        failed.unless(smtp["anomalies"] == Value::Array(Vec::new()), || {
            format!("{}: anomalies {}", name(), smtp["anomalies"])
        });
    }
    the_path_of_ipv6(output, failed);
}

fn mail_of(family: Family, output: &WatchOutput, failed: &mut Failed) {
    let digit = if family == Family::Ipv6 { 6 } else { 4 };
    let mut of = |local_part: &str, bytes: u64| {
        let to = format!("{local_part}{digit}@receiver.example");
        let session = failed.only(output, &to, |session| has_recipient(session, &to));
        let transaction = &session["smtp"]["transactions"][0];
        failed.equal(&format!("{to}: family"), &session["family"], family.to_string());
        failed.equal(&format!("{to}: data"), &transaction["data_code"], 250);
        let length = transaction["bytes"].as_u64().unwrap_or_default();
        failed.unless(length >= bytes, || format!("{to}: {length} bytes, not {bytes}"));
        transaction
    };
    of("plain", 6_000);
    of("large", 1_500_000);
    let refused = of("nobody", 6_000);
    let codes: Vec<&Value> = [0, 1].map(|n| &refused["rcpt_to"][n]["code"]).to_vec();
    failed.unless(codes == [&Value::from(550), &Value::from(250)], || {
        format!("one recipient of two refused: {refused}")
    });

    let chunks = failed.only(output, "BDAT", |session| {
        has_recipient(session, "chunks@receiver.example")
            && session["family"] == family.to_string().as_str()
    });
    let chunks = &chunks["smtp"]["transactions"][0];
    failed.equal("BDAT: chunking", &chunks["chunking"], true);
    failed.equal("BDAT: data", &chunks["data_code"], 250);
    let tls = failed.only(output, "STARTTLS", |session| {
        session["smtp"]["tls"] == "started" && session["family"] == family.to_string().as_str()
    });
    failed.equal("TLS version", &tls["smtp"]["tls_version"], "TLSv1.3");
    failed.equal("server name in TLS", &tls["smtp"]["sni"], Value::Null);
    let sent = tls["tcp"]["client_bytes"].as_u64().unwrap_or_default();
    failed.unless(sent > 1_500_000, || format!("in TLS: {sent} bytes"));
}

fn has_recipient(session: &Value, address: &str) -> bool {
    let transactions = session["smtp"]["transactions"].as_array().into_iter().flatten();
    let mut recipients = transactions.flat_map(|t| t["rcpt_to"].as_array().into_iter().flatten());
    recipients.any(|recipient| recipient["address"] == address)
}

/// A client without a reverse name, dropped SYNs, rejected SYNs, a narrow link with and without ICMPv6 errors.
fn the_path_of_ipv6(output: &WatchOutput, failed: &mut Failed) {
    let ipv6 = |session: &Value| session["family"] == "ipv6";
    let strict = "strict@receiver.example";
    let strict = failed.only(output, strict, |session| has_recipient(session, strict));
    let recipient = &strict["smtp"]["transactions"][0]["rcpt_to"][0];
    failed.equal("no reverse name", &recipient["code"], 550);

    let dropped = failed.only(output, "dropped SYNs", |s| s["tcp"]["outcome"] == "unanswered");
    failed.unless(ipv6(dropped), || format!("dropped SYNs: {dropped}"));
    let syns = dropped["tcp"]["syns"].as_u64().unwrap_or_default();
    failed.unless(syns >= 2, || format!("dropped SYNs: {syns}"));
    let rejected = failed.only(output, "rejected SYN", |s| s["tcp"]["outcome"] == "refused");
    failed.unless(ipv6(rejected), || format!("rejected SYN: {rejected}"));

    let narrow = "narrow@receiver.example";
    let narrow = failed.only(output, narrow, |session| has_recipient(session, narrow));
    failed.unless(ipv6(narrow), || format!("narrow link: {narrow}"));
    let data_code = &narrow["smtp"]["transactions"][0]["data_code"];
    failed.equal("narrow link: data", data_code, 250);
    failed.equal("narrow link: path MTU", &narrow["tcp"]["path_mtu"], 1280);
    failed.equal("narrow link: black hole", &narrow["tcp"]["black_hole"], false);

    let hole = failed.only(output, "black hole", |session| session["tcp"]["black_hole"] == true);
    failed.unless(ipv6(hole), || format!("black hole: {hole}"));
    failed.equal("black hole: ICMPv6", &hole["tcp"]["icmp_errors"], 0);
    let with_icmp = |session: &&Value| session["tcp"]["icmp_errors"] != 0;
    let with_icmp = output.of_type("session").filter(with_icmp).count();
    failed.unless(with_icmp == 1, || format!("ICMP errors in {with_icmp} sessions, not in one"));

    let mut fall_backs: Vec<(&str, &str)> = output
        .of_type("fallback")
        .map(|line| (line["why"].as_str().unwrap_or("?"), line["by"].as_str().unwrap_or("?")))
        .collect();
    fall_backs.sort_unstable();
    let wanted = ["black_hole", "refused", "unanswered"].map(|why| (why, "names"));
    failed.unless(fall_backs == wanted, || format!("fall-backs: {fall_backs:?}"));
}
