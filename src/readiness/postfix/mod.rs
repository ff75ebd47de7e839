//! The Postfix of this host: what keeps it from using IPv6, and what gatepost needs of it.
//!
//! Changes are proposed as shell commands; nothing is changed here.

mod install;
mod lists;
mod outbound;
mod policy_commands;
mod policy_service;
mod proxy;
mod receiving;
mod restrictions;
mod sending;

pub use self::install::{InstalledParts, install_commands};
use super::finding::FindingList;
use super::known::KnownAnswers;
use super::request::CheckRequest;

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let Some(postfix) = &request.postfix else { return };
    receiving::check(postfix, request, findings);
    sending::check(postfix, request, known, findings);
    lists::check(postfix, request, findings);
    proxy::check(postfix, findings);
    outbound::check(postfix, findings);
    policy_service::check(postfix, request, findings);
}

pub(super) fn check_sending(
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let Some(postfix) = &request.postfix else { return };
    sending::check(postfix, request, known, findings);
}
