//! `gatepost check DOMAIN`: is its mail ready for IPv6?
//!
//! What is to be known is asked for as [`crate::readiness`] wants it, many things at once and none of them for ever.

mod host;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::addr::is_global;
use crate::app::print::print;
use crate::cli::{CheckArgs, OutputFormat};
use crate::lookup::{Dns, Sources, SurveySettings, survey};
use crate::policy::facts::{Answer, LookupResult, Reason, Source};
use crate::readiness::{
    CheckEvaluation, CheckQuestion, CheckReport, CheckRequest, CheckStatus, CnameAnswer,
    ConnectResult, KnownAnswers, Origin, Survey, TxtAnswer, judge,
};
use crate::report::readiness;
use crate::time::Timestamp;

/// Questions and calls at once.
const AT_ONCE: usize = 32;
/// No DNS answer is waited for longer, so that there is time for what hangs on it.
const DNS_PATIENCE: Duration = Duration::from_secs(5);
/// Of the patience with one thing, for all of it.
const WHOLE: u32 = 3;
const SMTP: u16 = 25;

pub(super) async fn run(wanted: &CheckArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let dns =
        Dns::for_domain_check(wanted.dns, wanted.timeout.min(DNS_PATIENCE)).context("--dns")?;
    let asked = asked(wanted).await?;
    let hostname = match &asked.helo {
        Some((name, _)) => name.to_string(),
        None => nix::unistd::gethostname()
            .context("cannot learn this host's name; say it with --helo")?
            .to_string_lossy()
            .into_owned(),
    };
    let world =
        World { dns, caller: SurveySettings { hostname, port: SMTP, timeout: wanted.timeout } };
    let report = find_out(&asked, world, began + wanted.timeout * WHOLE).await;
    let told = match wanted.format {
        OutputFormat::Text => readiness::text(&asked, &report),
        OutputFormat::Json => readiness::json(&asked, &report),
    };
    print(&told)?;
    Ok(ExitCode::from(match report.outcome() {
        CheckStatus::Pass => 0,
        CheckStatus::Fail => 1,
        CheckStatus::Warn => 3,
        CheckStatus::Unknown => 4,
    }))
}

async fn asked(wanted: &CheckArgs) -> anyhow::Result<CheckRequest> {
    let interfaces = host::interfaces().await;
    let postfix = match wanted.postfix {
        true => Some(host::postfix(wanted.postfix_config.as_deref())?),
        false => None,
    };
    let bound = postfix.as_ref().map(|postfix| postfix.bound()).unwrap_or_default();
    let own = || {
        let nets = interfaces.iter().flat_map(|one| &one.addresses);
        nets.map(ipnet::IpNet::addr).filter(|ip| is_global(*ip))
    };
    let (senders, senders_from) = if !wanted.from.is_empty() {
        (wanted.from.iter().map(std::net::IpAddr::to_canonical).collect(), Origin::CommandLine)
    } else if !bound.is_empty() {
        // Of the other family the kernel chooses.
        let others = own().filter(|ip| bound.iter().all(|bound| bound.is_ipv6() != ip.is_ipv6()));
        (bound.iter().copied().chain(others).collect(), Origin::Postfix)
    } else {
        (own().collect(), Origin::Interfaces)
    };
    let senders: BTreeSet<_> = Vec::into_iter(senders).collect();
    let by_postfix = || Some((postfix.as_ref()?.helo()?, Origin::Postfix));
    Ok(CheckRequest {
        domain: wanted.domain.clone(),
        // IPv6 first.
        senders: senders.into_iter().rev().collect(),
        senders_from,
        helo: wanted.helo.clone().map(|name| (name, Origin::CommandLine)).or_else(by_postfix),
        selectors: wanted.selectors.clone(),
        interfaces,
        postfix,
    })
}

/// Whom to ask.
#[derive(Clone)]
struct World {
    dns: Dns,
    caller: SurveySettings,
}

enum Heard {
    Answer(LookupResult),
    Texts(TxtAnswer),
    Alias(CnameAnswer),
    Survey(Survey),
}

impl World {
    async fn ask(&self, question: &CheckQuestion) -> Heard {
        match question {
            CheckQuestion::Lookup(lookup) => {
                let sources = Sources { dns: Some(&self.dns), ..Sources::default() };
                Heard::Answer(sources.answer(lookup).await)
            }
            CheckQuestion::Txt(name) => Heard::Texts(self.dns.texts(name).await),
            CheckQuestion::Cname(name) => Heard::Alias(self.dns.alias(name).await),
            CheckQuestion::Survey(address) => Heard::Survey(survey(*address, &self.caller).await),
        }
    }
}

/// Asks until all is known, or the time is over; what is not known by then is unknown.
async fn find_out(asked: &CheckRequest, world: World, until: Instant) -> CheckReport {
    let mut known = KnownAnswers::default();
    let mut begun = BTreeSet::new();
    let mut waiting = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut late = false;
    loop {
        let needed = match judge(asked, &known) {
            CheckEvaluation::Done(report) => return report,
            CheckEvaluation::Needs(needed) => needed,
        };
        for question in needed {
            if late {
                note(&mut known, question.clone(), nobody(&question));
            } else if begun.insert(question.clone()) {
                waiting.insert(question.clone());
                let (world, at_once) = (world.clone(), Arc::clone(&at_once));
                tasks.spawn(async move {
                    let _permit = at_once.acquire_owned().await;
                    let heard = world.ask(&question).await;
                    (question, heard)
                });
            }
        }
        match timeout_at(until, tasks.join_next()).await {
            Ok(Some(Ok((question, heard)))) => {
                waiting.remove(&question);
                note(&mut known, question, heard);
            }
            // A task that ended without an answer leaves its question waiting.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => {
                late = true;
                tasks.abort_all();
                for question in std::mem::take(&mut waiting) {
                    let heard = nobody(&question);
                    note(&mut known, question, heard);
                }
            }
        }
    }
}

fn note(known: &mut KnownAnswers, question: CheckQuestion, heard: Heard) {
    match (question, heard) {
        (CheckQuestion::Lookup(lookup), Heard::Answer(answered)) => known.answer(lookup, answered),
        (CheckQuestion::Txt(name), Heard::Texts(texts)) => known.texts_are(name, texts),
        (CheckQuestion::Cname(name), Heard::Alias(alias)) => known.alias_is(name, alias),
        (CheckQuestion::Survey(address), Heard::Survey(survey)) => known.surveyed(address, survey),
        // A question gets an answer of its kind.
        _ => {}
    }
}

/// What is heard when the time is over.
fn nobody(question: &CheckQuestion) -> Heard {
    let late = Reason::Timeout;
    match question {
        CheckQuestion::Lookup(_) => {
            let at = Some(Timestamp::from_system_time(SystemTime::now()));
            Heard::Answer(LookupResult { answer: Answer::Unknown(late), source: Source::None, at })
        }
        CheckQuestion::Txt(_) => Heard::Texts(TxtAnswer::Unknown(late)),
        CheckQuestion::Cname(_) => Heard::Alias(CnameAnswer::Unknown(late)),
        CheckQuestion::Survey(_) => Heard::Survey(Survey::only(ConnectResult::OutOfTime)),
    }
}
