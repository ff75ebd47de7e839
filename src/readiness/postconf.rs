//! The configuration in the output of postconf(1), and commands that change it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::policy::facts::DomainName;

/// The parameters of main.cf that are checked.
pub const PARAMETERS: [&str; 28] = [
    "compatibility_level",
    "config_directory",
    "inet_interfaces",
    "inet_protocols",
    "mail_version",
    "myhostname",
    "mynetworks",
    "postscreen_upstream_proxy_protocol",
    "queue_directory",
    "relayhost",
    "smtp_address_preference",
    "smtp_bind_address",
    "smtp_bind_address6",
    "smtp_delivery_status_filter",
    "smtp_dns_reply_filter",
    "smtp_dns_support_level",
    "smtp_enforce_tls",
    "smtp_helo_name",
    "smtp_mx_session_limit",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_use_tls",
    "smtpd_authorized_xclient_hosts",
    "smtpd_authorized_xforward_hosts",
    "smtpd_forbid_bare_newline",
    "smtpd_policy_service_default_action",
    "smtpd_policy_service_timeout",
    "smtpd_upstream_proxy_protocol",
];
/// The lists of smtpd(8) in which it may ask a policy service.
pub const RESTRICTIONS: [&str; 7] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
];

/// The outgoing SMTP client in master.cf.
pub(super) const CLIENT: &str = "smtp/unix";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Postfix {
    /// The directory of `postconf -c`; `None` is the system's.
    directory: Option<String>,
    /// The path of gatepost, for commands.
    program: String,
    /// Of main.cf, `$name` expanded.
    main: BTreeMap<String, String>,
    /// The lists of main.cf as they are written there.
    unexpanded: BTreeMap<String, String>,
    services: Vec<MasterService>,
    /// `-o` overrides of master.cf, by `service/type` and parameter.
    overrides: BTreeMap<(String, String), String>,
}

/// A line of master.cf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MasterService {
    /// `smtp`, `[::1]:10025`
    name: String,
    /// `inet`, `unix`
    pub(super) kind: String,
    /// `y`, `n`, or `-` for the default.
    pub(super) chroot: String,
    /// The most processes, `0` without a limit, or `-` for the default.
    pub(super) process_limit: String,
    /// `smtpd`
    pub(super) command: String,
    pub(super) arguments: String,
}

impl MasterService {
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// `smtp`, `10025`
    pub(super) fn port(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// The host that it listens on; `None` means all of `inet_interfaces`.
    pub(super) fn host(&self) -> Option<&str> {
        let (host, _) = self.name.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']'))
    }

    pub(super) fn receives_internet_mail(&self) -> bool {
        self.kind == "inet" && matches!(self.port(), "smtp" | "25")
    }
}

impl Postfix {
    /// Parses the output of `postconf -x PARAMETERS`, `postconf -M` and `postconf -P`, run with `-c directory` if given.
    pub fn new(
        directory: Option<String>,
        parameters: &str,
        services: &str,
        overrides: &str,
    ) -> Self {
        let service = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, kind, _, _, chroot, _, limit, command, arguments @ ..] = words.as_slice()
            else {
                return None;
            };
            Some(MasterService {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                chroot: (*chroot).to_owned(),
                process_limit: (*limit).to_owned(),
                command: (*command).to_owned(),
                arguments: arguments.join(" "),
            })
        };
        let overrides = settings(overrides).into_iter().filter_map(|(name, value)| {
            let (service, parameter) = name.rsplit_once('/')?;
            Some(((service.to_owned(), parameter.to_owned()), value))
        });
        Self {
            directory,
            program: "/usr/bin/gatepost".to_owned(),
            main: settings(parameters).into_iter().collect(),
            unexpanded: BTreeMap::new(),
            services: services.lines().filter_map(service).collect(),
            overrides: overrides.collect(),
        }
    }

    /// Names another path of gatepost in commands than that of the package.
    #[must_use]
    pub fn with_program(self, program: String) -> Self {
        Self { program, ..self }
    }

    /// Adds the output of `postconf RESTRICTIONS`, so that changed lists keep their `$name`.
    #[must_use]
    pub fn with_unexpanded(self, lists: &str) -> Self {
        Self { unexpanded: settings(lists).into_iter().collect(), ..self }
    }

    pub(super) fn program(&self) -> &str {
        &self.program
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &MasterService> {
        self.services.iter()
    }

    /// The value in main.cf, empty if unset.
    pub(super) fn main(&self, parameter: &str) -> &str {
        self.main.get(parameter).map(String::as_str).unwrap_or_default()
    }

    /// Whether this version of Postfix has the parameter.
    pub(super) fn knows(&self, parameter: &str) -> bool {
        self.main.contains_key(parameter)
    }

    /// The value for a service, and whether master.cf overrides main.cf.
    pub(super) fn of(&self, service: &str, parameter: &str) -> (&str, bool) {
        match self.overrides.get(&(service.to_owned(), parameter.to_owned())) {
            Some(value) => (value, true),
            None => (self.main(parameter), false),
        }
    }

    /// A list as it is written in `main.cf`, or in master.cf for a service.
    pub(super) fn unexpanded(&self, place: &str, parameter: &str) -> &str {
        match (self.of(place, parameter), self.unexpanded.get(parameter)) {
            ((_, false), Some(value)) => value,
            ((value, _), _) => value,
        }
    }

    /// All values of a parameter, each with `main.cf` or the service in master.cf that it is for.
    pub(super) fn everywhere(&self, parameter: &str) -> Vec<(&str, &str)> {
        let overrides = self.overrides.iter().filter(|((_, name), _)| name == parameter);
        let overrides = overrides.map(|((service, _), value)| (service.as_str(), value.as_str()));
        std::iter::once(("main.cf", self.main(parameter))).chain(overrides).collect()
    }

    /// The configured sending addresses; none of a family if the kernel chooses.
    pub fn bind_addresses(&self) -> Vec<IpAddr> {
        let values =
            ["smtp_bind_address6", "smtp_bind_address"].map(|name| self.of(CLIENT, name).0);
        values.into_iter().filter_map(parse_address).collect()
    }

    /// The EHLO name, if it is a valid domain name.
    pub fn helo(&self) -> Option<DomainName> {
        DomainName::parse(self.helo_name().0)
    }

    pub(super) fn helo_name(&self) -> (&str, bool) {
        match self.of(CLIENT, "smtp_helo_name") {
            ("$myhostname", is_override) => (self.main("myhostname"), is_override),
            value => value,
        }
    }

    /// ` -c DIR`, or nothing for the system's directory.
    pub(super) fn directory_option(&self) -> String {
        self.directory
            .as_ref()
            .map_or_else(String::new, |directory| format!(" -c {}", shell_quote(directory)))
    }

    /// A file in the configuration directory.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.main("config_directory"))
    }

    /// The command that sets a parameter, in the file that has its present value.
    pub(super) fn set(&self, service: &str, parameter: &str, value: &str) -> String {
        if self.of(service, parameter).1 {
            let change = shell_quote(&format!("{service}/{parameter}={value}"));
            format!("postconf{} -P {change}", self.directory_option())
        } else {
            self.set_main(parameter, value)
        }
    }

    pub(super) fn set_main(&self, parameter: &str, value: &str) -> String {
        let change = format!("{parameter} = {value}");
        format!("postconf{} -e {}", self.directory_option(), shell_quote(change.trim_end()))
    }

    /// Commands that activate changes. Those of protocols and interfaces need a `restart`.
    pub(super) fn activate(&self, restart: bool) -> Vec<String> {
        let option = self.directory_option();
        if restart {
            vec![format!("postfix{option} stop"), format!("postfix{option} start")]
        } else {
            vec![format!("postfix{option} reload")]
        }
    }
}

/// Lines `name = value`.
fn settings(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// An address with or without brackets.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

pub(super) fn shell_quote(text: &str) -> String {
    let escaped = text.replace('\'', "'\\''");
    format!("'{escaped}'")
}

/// The items of a list: names, addresses and tables, separated by commas or white space.
pub(super) fn list_items(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}
