//! Serves the requests of other commands on this host.

use std::sync::Arc;

use super::canary::CanaryService;
use crate::app::cache;
use crate::app::door::DoorHandle;
use crate::app::outbound::{self, OutboundEvidence};
use crate::control::{
    ControlConnection, ControlListener, ControlRequest, ControlResponse, ControlSettings,
    DoorChange,
};
use crate::lookup::LookupService;
use crate::recording::RecordingFilter;
use crate::relay::Taps;
use crate::report::{LogLevel, SessionLog};

#[derive(Clone)]
pub(super) struct ControlService {
    pub(super) taps: Arc<Taps>,
    /// `None` without `[door]`.
    pub(super) doors: Option<DoorHandle>,
    /// `None` if lookups are disabled.
    pub(super) lookup: Option<LookupService>,
    /// `None` without `[outbound]`.
    pub(super) outbound: Option<OutboundEvidence>,
    pub(super) canary: CanaryService,
    pub(super) log: Arc<SessionLog>,
}

impl ControlService {
    /// Serves until it is aborted.
    pub(super) async fn serve(self, listener: ControlListener) {
        let serve = move |request, connection| {
            let service = self.clone();
            async move { service.handle(request, connection).await }
        };
        listener.serve(serve).await;
    }

    async fn handle(&self, request: ControlRequest, mut connection: ControlConnection) {
        match request {
            ControlRequest::Record(filter) => self.record(filter, connection).await,
            ControlRequest::Door { change } => self.change_door(change, connection).await,
            ControlRequest::Outbound { name } => {
                outbound::serve(self.outbound.as_ref(), name, connection).await;
            }
            ControlRequest::MessagesToReturn => {
                let due = self.outbound.as_ref().map(OutboundEvidence::messages_to_return);
                let _closed = connection.answer(Ok(due.unwrap_or_default())).await;
            }
            ControlRequest::Canary(report) => {
                let result = self.canary.on_report(report);
                let response = result.map_or_else(ControlResponse::Error, |()| ControlResponse::Ok);
                let _closed = connection.respond(&response).await;
            }
            ControlRequest::Cache(request) => {
                cache::serve(self.lookup.as_ref(), request, &mut connection).await;
            }
        }
    }

    async fn change_door(&self, change: Option<DoorChange>, mut connection: ControlConnection) {
        let reports = match &self.doors {
            Some(doors) => doors.change(change).await,
            None => {
                Err("its configuration has no [door], so both families are always open".to_owned())
            }
        };
        let _closed = connection.answer(reports).await;
    }

    /// Sends frames of new sessions to a recorder until it disconnects.
    async fn record(&self, filter: RecordingFilter, mut connection: ControlConnection) {
        let mut tap = match self.taps.attach(filter) {
            Ok(tap) => tap,
            Err(error) => {
                let _closed = connection.respond(&ControlResponse::Error(error.to_string())).await;
                return;
            }
        };
        self.log.notice(LogLevel::Info, "recorder attached; new sessions are recorded");
        let mut is_open = connection.respond(&ControlResponse::Ok).await.is_ok();
        while is_open {
            is_open = tokio::select! {
                bytes = tap.next() => connection.send(bytes).await.is_ok(),
                () = connection.closed() => false,
            };
        }
        self.log.notice(LogLevel::Info, "recorder detached");
    }
}

/// The control socket, or why there is none. A socket that the configuration does not name is optional.
///
/// # Errors
/// The configured socket cannot be opened.
pub(super) fn bind(settings: &ControlSettings) -> anyhow::Result<Result<ControlListener, String>> {
    match ControlListener::bind(settings) {
        Ok(listener) => Ok(Ok(listener)),
        Err(error) if settings.required => Err(error.into()),
        Err(error) => Ok(Err(format!("no control socket: {error}"))),
    }
}
