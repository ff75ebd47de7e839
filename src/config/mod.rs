//! The checked configuration: what the rest of the program reads, with every value valid and every default filled in.
//!
//! Layer 5, and plain data. Each part is a type of the module it concerns; this one only says which file they came from.
//! `raw` reads TOML and tells every mistake in a file at once; nothing else makes a [`Config`] from text.

mod error;
mod raw;

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors, Position};

use crate::addr::{Family, Networks};
use crate::control;
use crate::intercept;
use crate::intercept::door::RefuseMethod;
use crate::lookup::{self, vantage};
use crate::policy;
use crate::policy::facts::DomainName;
use crate::policy::rules::{PolicyRule, PolicyStage};
use crate::relay;
use crate::report;
use crate::smtp::Keyword;
use crate::source::live;

/// What the buffer of a live source may be, in octets.
pub const WATCH_BUFFER: RangeInclusive<usize> = 64 << 10..=4 << 30;

/// Everything that one file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub relay: relay::RelaySettings,
    /// Present exactly with `listen.mode = "tproxy"`.
    pub intercept: Option<intercept::InterceptSettings>,
    pub log: report::LogSettings,
    /// `[metrics] address`; absent without the section.
    pub metrics: Option<SocketAddr>,
    /// `[status]`: what the page at `/` of the metrics shows.
    pub status: report::status::StatusSettings,
    pub control: control::ControlSettings,
    /// `[process] user`: whom a gateway that root started becomes.
    pub user: Option<String>,
    pub site: Site,
    /// `[watch]`; without the section nothing is watched.
    pub watch: Option<live::CaptureSettings>,
    /// `[door]`; without the section nothing is ever closed.
    pub door: Option<DoorConfig>,
    /// `[lookup]`, and what it takes from other sections.
    pub lookup: lookup::LookupSettings,
    /// `[vantage]`; without the section nobody elsewhere is asked.
    pub vantage: Option<vantage::VantageSettings>,
}

/// `[door]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    pub refuse: RefuseMethod,
    /// Who is let in whatever the door says: the vantage, monitoring.
    pub exempt: Networks,
    /// How often a prober elsewhere is asked.
    pub probe_every: Duration,
    /// What guards each family; `None`: nothing does, it is always open.
    pub ipv6: Option<policy::door::DoorSettings>,
    pub ipv4: Option<policy::door::DoorSettings>,
}

impl DoorConfig {
    /// How often a prober elsewhere is asked, if nobody says otherwise.
    pub const PROBE_EVERY: Duration = Duration::from_secs(60);

    /// Nothing guards either family.
    pub fn unguarded() -> Self {
        Self {
            refuse: RefuseMethod::Smtp,
            exempt: Networks::default(),
            probe_every: Self::PROBE_EVERY,
            ipv6: None,
            ipv4: None,
        }
    }

    /// What guards `family`.
    pub const fn of(&self, family: Family) -> Option<&policy::door::DoorSettings> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }
}

/// A number of octets, with K, M or G for powers of 1024.
pub fn parse_size(text: &str) -> Option<usize> {
    let (digits, power) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => text.strip_suffix(['G', 'g']).map_or((text, 0), |digits| (digits, 30)),
        },
    };
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<usize>().ok()?.checked_mul(1 << power)
}

/// `[site]`: what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Our own addresses, by which no sender can be reached.
    pub addresses: Networks,
    /// The domains that we take mail for.
    pub domains: Vec<DomainName>,
}

impl Config {
    /// What is allowed and may not be what is meant.
    pub fn warnings(&self) -> Vec<String> {
        let envelope = |rule: &&PolicyRule| rule.at >= PolicyStage::Mail;
        let rules = self.relay.rules.iter().filter(envelope);
        let rules: Vec<_> = rules.map(|rule| format!("\"{}\"", rule.name)).collect();
        if rules.is_empty() || self.relay.smtp.hide.contains(&Keyword::Starttls) {
            return Vec::new();
        }
        let names = rules.join(", ");
        let (rule, look) = if rules.len() == 1 { ("rule", "looks") } else { ("rules", "look") };
        vec![format!(
            "the policy {rule} {names} {look} at MAIL or RCPT, and after STARTTLS nobody sees these: such sessions are \
             judged without; hide = [\"STARTTLS\"] in [smtp] has every session judged"
        )]
    }

    /// The configuration that `text` says, in TOML; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// Every mistake in it at once.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        raw::parse(text, file)
    }

    /// The configuration in the file at `path`.
    ///
    /// # Errors
    ///
    /// Every mistake in it at once, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let bytes = fs::read(path).map_err(|why| {
            let problem = format!("cannot be read ({why})");
            ConfigErrors::whole_file(&file, problem, "name a file that this user may read")
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &file),
            Err(wrong) => Err(ConfigErrors::not_utf8(&file, &bytes, wrong.valid_up_to())),
        }
    }
}
