//! What a running gateway does for other commands of this host.

use std::sync::Arc;

use crate::app::cache;
use crate::app::door::Keeper;
use crate::control::{
    self, ControlConnection, ControlListener, ControlRequest, ControlResponse, DoorChange,
};
use crate::lookup::LookupService;
use crate::recording::RecordingFilter;
use crate::relay::Taps;
use crate::report::{LogLevel, SessionLog};

/// Who does what is asked.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) recorders: Arc<Taps>,
    /// `None` without `[door]`.
    pub(super) keeper: Option<Keeper>,
    /// `None` if nobody can be asked.
    pub(super) reach: Option<LookupService>,
    pub(super) log: Arc<SessionLog>,
}

impl Desk {
    /// Without end: abort it.
    pub(super) async fn serve(self, listener: ControlListener) {
        let serve = move |request, connection| {
            let desk = self.clone();
            async move { desk.request(request, connection).await }
        };
        listener.serve(serve).await;
    }

    async fn request(&self, request: ControlRequest, mut connection: ControlConnection) {
        match request {
            ControlRequest::Record(wanted) => {
                feed(&self.recorders, wanted, connection, &self.log).await;
            }
            ControlRequest::Door { change: turn } => {
                turn_door(self.keeper.as_ref(), turn, connection).await
            }
            ControlRequest::Cache(wanted) => {
                cache::serve(self.reach.as_ref(), wanted, &mut connection).await;
            }
        }
    }
}

/// The control socket, or why there is none: where the file names none, a gateway can do without.
///
/// # Errors
/// The socket that the file names cannot be had.
pub(super) fn bind(
    settings: &control::ControlSettings,
) -> anyhow::Result<Result<ControlListener, String>> {
    match ControlListener::bind(settings) {
        Ok(listener) => Ok(Ok(listener)),
        Err(error) if settings.required => Err(error.into()),
        Err(error) => Ok(Err(format!("no control socket: {error}"))),
    }
}

/// Turns a door, if that is asked, and tells of both.
async fn turn_door(
    keeper: Option<&Keeper>,
    turn: Option<DoorChange>,
    mut connection: ControlConnection,
) {
    let told = match keeper {
        Some(keeper) => keeper.told(turn).await,
        None => Err("its configuration has no [door]: it lets both families in always".to_owned()),
    };
    let line = told.and_then(|told| serde_json::to_vec(&told).map_err(|error| error.to_string()));
    let _gone_already = match line {
        Ok(mut line) => {
            line.push(b'\n');
            match connection.respond(&ControlResponse::Ok).await {
                Ok(()) => connection.send(&line).await,
                gone => gone,
            }
        }
        Err(why) => connection.respond(&ControlResponse::Error(why)).await,
    };
}

/// Tells a recorder of sessions until it hangs up.
async fn feed(
    recorders: &Arc<Taps>,
    selection: RecordingFilter,
    mut connection: ControlConnection,
    log: &SessionLog,
) {
    let mut recorder = match recorders.attach(selection) {
        Ok(recorder) => recorder,
        Err(error) => {
            let _gone_already =
                connection.respond(&ControlResponse::Error(error.to_string())).await;
            return;
        }
    };
    log.notice(LogLevel::Info, "a recorder is attached: sessions that begin now are told to it");
    let mut there = connection.respond(&ControlResponse::Ok).await.is_ok();
    while there {
        there = tokio::select! {
            octets = recorder.next() => connection.send(octets).await.is_ok(),
            () = connection.closed() => false,
        };
    }
    log.notice(LogLevel::Info, "a recorder is gone");
}
