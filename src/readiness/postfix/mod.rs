//! This host's Postfix, as postconf(1) tells of it: what keeps it from IPv6, and what gatepost needs of it.
//!
//! What is to be changed is said as lines for a shell. Nothing is changed here.

mod lists;
mod proxy;
mod receiving;
mod sending;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::finding::Findings;
use super::{CheckRequest, KnownAnswers};
use crate::policy::facts::DomainName;

/// What is read of main.cf.
pub const PARAMETERS: [&str; 12] = [
    "inet_interfaces",
    "inet_protocols",
    "myhostname",
    "mynetworks",
    "postscreen_upstream_proxy_protocol",
    "smtp_address_preference",
    "smtp_bind_address",
    "smtp_bind_address6",
    "smtp_helo_name",
    "smtpd_authorized_xclient_hosts",
    "smtpd_authorized_xforward_hosts",
    "smtpd_upstream_proxy_protocol",
];

/// The outgoing SMTP client in master.cf.
const CLIENT: &str = "smtp/unix";

/// What postconf(1) printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Postfix {
    /// The directory of `postconf -c`; without one it is the system's.
    directory: Option<String>,
    /// Of main.cf, `$name` expanded.
    main: BTreeMap<String, String>,
    services: Vec<Service>,
    /// `-o` of master.cf, by `service/type` and parameter.
    own: BTreeMap<(String, String), String>,
}

/// A line of master.cf.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// Such as `smtp`, `[::1]:10025`.
    name: String,
    /// Such as `inet`, `unix`.
    kind: String,
    /// Such as `smtpd`.
    command: String,
}

impl Service {
    fn key(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// Such as `smtp`, `10025`.
    fn port(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// The host that it listens at; every one of `inet_interfaces` without.
    fn host(&self) -> Option<&str> {
        let (host, _) = self.name.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']'))
    }

    fn takes_mail_of_others(&self) -> bool {
        self.kind == "inet" && matches!(self.port(), "smtp" | "25")
    }
}

impl Postfix {
    /// From the output of `postconf -x PARAMETERS`, `postconf -M` and `postconf -P`, all with `-c directory` if there is one.
    pub fn new(directory: Option<String>, parameters: &str, services: &str, own: &str) -> Self {
        let settings = |text: &str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let trimmed =
                pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
            trimmed.collect::<Vec<_>>()
        };
        let service = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, kind, ..] = words.as_slice() else { return None };
            let command = (*words.get(7)?).to_owned();
            Some(Service { name: (*name).to_owned(), kind: (*kind).to_owned(), command })
        };
        let own = settings(own).into_iter().filter_map(|(name, value)| {
            let (service, parameter) = name.rsplit_once('/')?;
            Some(((service.to_owned(), parameter.to_owned()), value))
        });
        Self {
            directory,
            main: settings(parameters).into_iter().collect(),
            services: services.lines().filter_map(service).collect(),
            own: own.collect(),
        }
    }

    fn main(&self, parameter: &str) -> &str {
        self.main.get(parameter).map(String::as_str).unwrap_or_default()
    }

    /// In force for a service, and whether master.cf says so.
    fn of(&self, service: &str, parameter: &str) -> (&str, bool) {
        match self.own.get(&(service.to_owned(), parameter.to_owned())) {
            Some(value) => (value, true),
            None => (self.main(parameter), false),
        }
    }

    /// The addresses that it is told to send from; none of a family where the kernel chooses.
    pub fn bound(&self) -> Vec<IpAddr> {
        let bound = ["smtp_bind_address6", "smtp_bind_address"].map(|name| self.of(CLIENT, name).0);
        bound.into_iter().filter_map(bare).collect()
    }

    /// What it says in EHLO, if that is a name.
    pub fn helo(&self) -> Option<DomainName> {
        DomainName::parse(self.helo_name().0)
    }

    fn helo_name(&self) -> (&str, bool) {
        match self.of(CLIENT, "smtp_helo_name") {
            ("$myhostname", own) => (self.main("myhostname"), own),
            value => value,
        }
    }

    /// ` -c DIR`, as the system's needs none.
    fn at(&self) -> String {
        self.directory
            .as_ref()
            .map_or_else(String::new, |directory| format!(" -c {}", quoted(directory)))
    }

    /// The line that gives a parameter a value, where it has the present one.
    fn set(&self, service: &str, parameter: &str, value: &str) -> String {
        if self.of(service, parameter).1 {
            let change = quoted(&format!("{service}/{parameter}={value}"));
            format!("postconf{} -P {change}", self.at())
        } else {
            self.set_main(parameter, value)
        }
    }

    fn set_main(&self, parameter: &str, value: &str) -> String {
        let change = format!("{parameter} = {value}");
        format!("postconf{} -e {}", self.at(), quoted(change.trim_end()))
    }

    /// What makes changes count, `restart` also those of the addresses that it listens on.
    pub(super) fn activate(&self, restart: bool) -> Vec<String> {
        let at = self.at();
        if restart {
            vec![format!("postfix{at} stop"), format!("postfix{at} start")]
        } else {
            vec![format!("postfix{at} reload")]
        }
    }
}

pub(super) fn judge(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let Some(postfix) = &asked.postfix else { return };
    receiving::judge(postfix, asked, findings);
    sending::judge(postfix, asked, known, findings);
    lists::judge(postfix, asked, findings);
    proxy::judge(postfix, findings);
}

/// An address with or without brackets.
fn bare(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// For a shell.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\'', "'\\''");
    format!("'{escaped}'")
}

/// Of a list: names, addresses and tables, commas or white space between.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}
