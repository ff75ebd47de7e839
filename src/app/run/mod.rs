//! `gatepost run --config FILE`.

mod bootstrap;
mod canary;
mod capabilities;
mod certificate_updates;
mod certificates;
mod control;
mod door_config;
mod evidence;
mod gateway;
mod host_log;
mod inherited;
mod interception_watch;
mod joined_sessions;
mod lookup_router;
mod own_addresses;
mod policy_service;
mod service_manager;
mod status_page;
mod upstream_log;

use std::path::Path;
use std::process::ExitCode;

use self::gateway::Gateway;
use super::host_addresses::ThisHost;
use crate::config::Config;

pub(super) async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load_for(path, &ThisHost::new())?;
    let mut gateway = Gateway::start(path, config).await?;
    gateway.serve().await?;
    gateway.stop().await
}
