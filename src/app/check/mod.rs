//! `gatepost check DOMAIN`: whether the domain's mail is ready for IPv6.
//!
//! Performs the queries that [`crate::readiness`] requests, many at once, within a time limit.

mod domain_checker;
pub(super) mod host;
mod probe;
mod sending;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::domain_checker::DomainChecker;
pub(super) use self::probe::{CheckingHost, domain_checks};
pub(super) use self::sending::{CheckedHost, check_sending};
use crate::addr::{Family, is_global};
use crate::app::hostname::hostname;
use crate::app::output::print;
use crate::app::{control_client, door};
use crate::cli::{CheckArgs, OutputFormat};
use crate::config::Config;
use crate::humanize::date_time;
use crate::lookup::vantage::{DEFAULT_TIMEOUT, Vantage, VantageResult, VantageSettings};
use crate::lookup::{Dns, Sources, SurveySettings, SurveyTls, answers, fetch_policy, survey};
use crate::policy::facts::{Answer, DomainName, Lookup, LookupResult, Reason, Source};
use crate::policy::rules::{PolicyStage, RuleMode};
use crate::postfix::policy::PolicyAddress;
use crate::readiness::{
    CheckEvaluation, CheckQuestion, CheckReport, CheckRequest, CheckStatus, CnameAnswer,
    ConnectResult, HostInterface, KnownAnswers, NameServerReply, Origin, OutsideResult,
    OutsideView, PolicyFetch, PolicyServer, PolicyServerAddress, Survey, ValidatedAnswer,
    ValidatedType,
};
use crate::report::readiness;
use crate::time::Timestamp;
use crate::tls::{small_hello_config, survey_config, system_verifier};

/// Queries in flight.
const AT_ONCE: usize = 32;
/// Limit of one DNS query, so that time remains for the queries that depend on it.
const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit of the whole check, as a multiple of the limit of one query.
const TOTAL: u32 = 3;
/// Surveys end this long before the check, so that the report has what they found.
const SURVEYS_END: Duration = Duration::from_millis(200);
const SMTP: u16 = 25;
/// Time for a running gateway to name its doors.
const DOORS: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let dns = Dns::for_domain_check(args.network.dns, args.network.timeout.min(DNS_TIMEOUT))
        .context("--dns")?;
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let vantage = vantage_settings(args, config.as_ref());
    let request = request(args, config.as_ref(), vantage.as_ref()).await?;
    let hostname = match &request.helo {
        Some((name, _)) => name.to_string(),
        None => hostname("--helo")?,
    };
    let mut checker = DomainChecker::new(dns, hostname, args.network.timeout)?;
    if let Some(settings) = &vantage {
        let vantage = Vantage::new(settings, None)?;
        checker = checker.asking(OutsideObserver { vantage, domain: args.domain.clone() });
    }
    let mut report = checker.check(&request).await;
    report.ignore(&args.ignore);
    let text = match args.format {
        OutputFormat::Text => readiness::text(&request, &report, args.all),
        OutputFormat::Json => {
            readiness::json(&request, &report, Timestamp::from_system_time(SystemTime::now()))
        }
    };
    print(&text)?;
    Ok(ExitCode::from(match report.outcome() {
        harmless if harmless < args.fail_on => 0,
        CheckStatus::Pass => 0,
        CheckStatus::Fail => 1,
        CheckStatus::Warn => 3,
        CheckStatus::Unknown => 4,
    }))
}

/// TLS with any server, whose certificate is judged by the authorities of this host.
fn survey_tls() -> anyhow::Result<SurveyTls> {
    let config = survey_config().context("TLS")?;
    let small = small_hello_config().context("TLS")?;
    Ok(SurveyTls { config, small, verifier: system_verifier().ok() })
}

async fn request(
    args: &CheckArgs,
    config: Option<&Config>,
    vantage: Option<&VantageSettings>,
) -> anyhow::Result<CheckRequest> {
    let interfaces = host::interfaces().await?;
    let postfix = match args.postfix {
        true => Some(host::postfix(args.postfix_config.as_deref())?),
        false => None,
    };
    let policy_server = config.and_then(policy_server);
    let bound = postfix.as_ref().map(|postfix| postfix.bind_addresses()).unwrap_or_default();
    let (senders, senders_from) = match args.from.is_empty() {
        true => senders(&interfaces, &bound),
        false => {
            let senders: BTreeSet<IpAddr> = args.from.iter().map(IpAddr::to_canonical).collect();
            (senders.into_iter().rev().collect(), Origin::CommandLine)
        }
    };
    let helo_of_postfix = || Some((postfix.as_ref()?.helo()?, Origin::Postfix));
    Ok(CheckRequest {
        domain: args.domain.clone(),
        senders,
        senders_from,
        helo: args.helo.clone().map(|name| (name, Origin::CommandLine)).or_else(helo_of_postfix),
        selectors: args.selectors.clone(),
        dnsbls: args.dnsbls.clone(),
        interfaces,
        postfix,
        controls: args.controls.clone(),
        vantage: vantage.map(|settings| settings.address),
        closed_doors: closed_doors(&control_client::socket(None, args.config.as_deref())?).await,
        behind_gateway: config.map(|config| config.site.addresses.clone()).unwrap_or_default(),
        policy_server,
    })
}

/// Of the gateway on this host, if one is running and has this control socket.
async fn closed_doors(socket: &Path) -> BTreeMap<Family, String> {
    // A host without a gateway has no closed door.
    let doors =
        timeout(DOORS, door::doors(socket)).await.map_or(Vec::new(), Result::unwrap_or_default);
    let closed = doors.into_iter().filter(|door| door.enforced).filter_map(|door| {
        let status = door.status.filter(|status| !status.admits)?;
        let since = date_time(status.since);
        Some((door.family, format!("{}, since {since} UTC", status.detail)))
    });
    closed.collect()
}

/// `--vantage`, or `[vantage]` of the gateway if the domain is one of its own.
fn vantage_settings(args: &CheckArgs, config: Option<&Config>) -> Option<VantageSettings> {
    let of_gateway = config.and_then(|config| config.vantage.as_ref());
    let of_gateway = of_gateway.filter(|settings| settings.domains.contains(&args.domain));
    let (address, key) = match (&args.vantage, &args.vantage_key) {
        (Some(address), Some(key)) => (*address, key),
        _ => of_gateway.map(|settings| (settings.address, &settings.key))?,
    };
    Some(VantageSettings {
        address,
        key: key.clone(),
        domains: vec![args.domain.clone()],
        // A probe at the vantage may take all of its own time.
        timeout: (args.network.timeout * (TOTAL - 1)).min(DEFAULT_TIMEOUT),
    })
}

/// The vantage, and the domain that it is asked about.
#[derive(Clone)]
struct OutsideObserver {
    vantage: Vantage,
    domain: DomainName,
}

impl OutsideObserver {
    async fn view(&self, family: Family) -> OutsideView {
        let seen = match self.vantage.probe(&self.domain, family).await {
            Err(error) => return OutsideView::Failed(error.to_string()),
            Ok(VantageResult::Unknown(reason)) => {
                return OutsideView::Failed(format!(
                    "the vantage's DNS lookup of the exchanges failed ({})",
                    reason.as_str()
                ));
            }
            Ok(VantageResult::Addresses(seen)) => seen,
        };
        let result = |answer| match answer {
            Answer::Yes(_) => OutsideResult::Greeted,
            Answer::No(reason, _) => OutsideResult::NotReached(reason.as_str().replace('_', " ")),
            _ => OutsideResult::Unknown,
        };
        OutsideView::Seen(seen.into_iter().map(|one| (one.ip, result(one.answer))).collect())
    }
}

/// The addresses from which this host sends, IPv6 first: `bound`, and in a family without one those of which the kernel chooses.
fn senders(interfaces: &[HostInterface], bound: &[IpAddr]) -> (Vec<IpAddr>, Origin) {
    let own = interfaces.iter().flat_map(HostInterface::senders);
    let is_free = |ip: &IpAddr| bound.iter().all(|bound| bound.is_ipv6() != ip.is_ipv6());
    let chosen = own.filter(|ip| is_global(*ip) && is_free(ip));
    let senders: BTreeSet<IpAddr> = bound.iter().copied().chain(chosen).collect();
    let origin = if bound.is_empty() { Origin::Interfaces } else { Origin::Postfix };
    (senders.into_iter().rev().collect(), origin)
}

/// `[postfix] policy`
pub(super) fn policy_server(config: &Config) -> Option<PolicyServer> {
    let settings = config.policy_service.as_ref()?;
    let address = match &settings.address {
        PolicyAddress::Unix(path) => PolicyServerAddress::Unix(path.clone()),
        PolicyAddress::Inet(address) => PolicyServerAddress::Inet(*address),
    };
    let rules = &config.relay.profile(None).rules;
    let decides_at_end = rules.have_stage(PolicyStage::Data)
        && !rules
            .iter()
            .any(|rule| rule.mode == RuleMode::Enforce && rule.needs_content().is_some());
    Some(PolicyServer { address, deadline: settings.deadline, decides_at_end })
}

#[derive(Clone)]
struct QuerySources {
    dns: Dns,
    survey: SurveySettings,
    vantage: Option<OutsideObserver>,
}

/// A query with its answer.
enum Answered {
    Lookup(Lookup, LookupResult),
    Cname(DomainName, CnameAnswer),
    Validated(DomainName, ValidatedType, ValidatedAnswer),
    NameServer(IpAddr, DomainName, NameServerReply),
    Control(IpAddr, ConnectResult),
    Outside(Family, OutsideView),
    Survey(IpAddr, DomainName, Box<Survey>),
    Policy(IpAddr, DomainName, Box<PolicyFetch>),
}

impl QuerySources {
    /// `domain` is the one that is checked.
    async fn answer(&self, query: CheckQuestion, domain: &DomainName) -> Answered {
        match query {
            CheckQuestion::Lookup(lookup) => {
                let sources = Sources { dns: Some(&self.dns), ..Sources::default() };
                let result = sources.answer(&lookup).await;
                Answered::Lookup(lookup, result)
            }
            CheckQuestion::Cname(name) => {
                let answer = self.dns.alias(&name).await;
                Answered::Cname(name, answer)
            }
            CheckQuestion::Validated(name, kind) => {
                let answer = self.dns.validated(&name, kind).await;
                Answered::Validated(name, kind, answer)
            }
            CheckQuestion::NameServer(server, zone) => {
                let reply = self.dns.ask_name_server(server, &zone).await;
                Answered::NameServer(server, zone, reply)
            }
            CheckQuestion::Control(address) => {
                Answered::Control(address, answers(address, &self.survey).await)
            }
            CheckQuestion::Outside(family) => {
                let view = match &self.vantage {
                    Some(vantage) => vantage.view(family).await,
                    None => OutsideView::Failed("no vantage is named".to_owned()),
                };
                Answered::Outside(family, view)
            }
            CheckQuestion::Survey(address, exchange) => {
                let found = survey(address, &exchange, domain, &self.survey).await;
                Answered::Survey(address, exchange, Box::new(found))
            }
            CheckQuestion::Policy(address, host) => {
                let found = fetch_policy(address, &host, &self.survey).await;
                Answered::Policy(address, host, Box::new(found))
            }
        }
    }
}

impl Answered {
    fn timed_out(query: CheckQuestion) -> Self {
        let reason = Reason::Timeout;
        match query {
            CheckQuestion::Lookup(lookup) => {
                let at = Some(Timestamp::from_system_time(SystemTime::now()));
                let answer = Answer::Unknown(reason);
                Self::Lookup(lookup, LookupResult { answer, source: Source::None, at })
            }
            CheckQuestion::Cname(name) => Self::Cname(name, CnameAnswer::Unknown(reason)),
            CheckQuestion::Validated(name, kind) => {
                let answer = ValidatedAnswer::failed(name.clone(), reason);
                Self::Validated(name, kind, answer)
            }
            CheckQuestion::NameServer(server, zone) => {
                Self::NameServer(server, zone, NameServerReply::OutOfTime)
            }
            CheckQuestion::Control(address) => Self::Control(address, ConnectResult::OutOfTime),
            CheckQuestion::Outside(family) => {
                let why = "the vantage did not answer in the time of the check".to_owned();
                Self::Outside(family, OutsideView::Failed(why))
            }
            CheckQuestion::Survey(address, exchange) => {
                let survey = Survey::only(ConnectResult::OutOfTime);
                Self::Survey(address, exchange, Box::new(survey))
            }
            CheckQuestion::Policy(address, host) => {
                let fetch = PolicyFetch::only(ConnectResult::OutOfTime);
                Self::Policy(address, host, Box::new(fetch))
            }
        }
    }

    fn add_to(self, known: &mut KnownAnswers) {
        match self {
            Self::Lookup(lookup, result) => known.insert(lookup, result),
            Self::Cname(name, answer) => known.insert_cname(name, answer),
            Self::Validated(name, kind, answer) => known.insert_validated(name, kind, answer),
            Self::NameServer(server, zone, reply) => known.insert_name_server(server, zone, reply),
            Self::Control(address, reached) => known.insert_control(address, reached),
            Self::Outside(family, view) => known.insert_outside(family, view),
            Self::Survey(address, exchange, survey) => {
                known.insert_survey(address, exchange, *survey);
            }
            Self::Policy(address, host, fetch) => known.insert_policy(address, host, *fetch),
        }
    }
}

/// Performs queries until none is needed. Those without an answer by `deadline` time out.
async fn check(
    evaluate: fn(&CheckRequest, &KnownAnswers) -> CheckEvaluation,
    request: &CheckRequest,
    sources: QuerySources,
    deadline: Instant,
) -> CheckReport {
    let mut known = KnownAnswers::default();
    let mut started = BTreeSet::new();
    let mut pending = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut is_late = false;
    loop {
        let needed = match evaluate(request, &known) {
            CheckEvaluation::Done(report) => return report,
            CheckEvaluation::Needs(needed) => needed,
        };
        for query in needed {
            if is_late {
                Answered::timed_out(query).add_to(&mut known);
            } else if started.insert(query.clone()) {
                pending.insert(query.clone());
                let (sources, at_once) = (sources.clone(), Arc::clone(&at_once));
                let domain = request.domain.clone();
                tasks.spawn(async move {
                    let _permit = at_once.acquire_owned().await;
                    (query.clone(), sources.answer(query, &domain).await)
                });
            }
        }
        match timeout_at(deadline, tasks.join_next()).await {
            Ok(Some(Ok((query, answered)))) => {
                pending.remove(&query);
                answered.add_to(&mut known);
            }
            // A task that panicked leaves its query pending.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => {
                is_late = true;
                tasks.abort_all();
                for query in std::mem::take(&mut pending) {
                    Answered::timed_out(query).add_to(&mut known);
                }
            }
        }
    }
}
