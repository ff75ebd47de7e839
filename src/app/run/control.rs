//! What a running gateway does for other commands of this host.

use std::sync::Arc;

use crate::app::cache;
use crate::app::door::Keeper;
use crate::control::{self, Answer, Connection, Request, Turn};
use crate::lookup::LookupService;
use crate::recording::Selection;
use crate::relay::Recorders;
use crate::report::{LogLevel, SessionLog};

/// Who does what is asked.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) recorders: Arc<Recorders>,
    /// `None` without `[door]`.
    pub(super) keeper: Option<Keeper>,
    /// `None` if nobody can be asked.
    pub(super) reach: Option<LookupService>,
    pub(super) log: Arc<SessionLog>,
}

impl Desk {
    /// Without end: abort it.
    pub(super) async fn serve(self, listener: control::Listener) {
        let serve = move |request, connection| {
            let desk = self.clone();
            async move { desk.request(request, connection).await }
        };
        listener.serve(serve).await;
    }

    async fn request(&self, request: Request, mut connection: Connection) {
        match request {
            Request::Record(wanted) => {
                feed(&self.recorders, wanted, connection, &self.log).await;
            }
            Request::Door { turn } => turn_door(self.keeper.as_ref(), turn, connection).await,
            Request::Cache(wanted) => {
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
    settings: &control::Settings,
) -> anyhow::Result<Result<control::Listener, String>> {
    match control::Listener::bind(settings) {
        Ok(listener) => Ok(Ok(listener)),
        Err(error) if settings.required => Err(error.into()),
        Err(error) => Ok(Err(format!("no control socket: {error}"))),
    }
}

/// Turns a door, if that is asked, and tells of both.
async fn turn_door(keeper: Option<&Keeper>, turn: Option<Turn>, mut connection: Connection) {
    let told = match keeper {
        Some(keeper) => keeper.told(turn).await,
        None => Err("its configuration has no [door]: it lets both families in always".to_owned()),
    };
    let line = told.and_then(|told| serde_json::to_vec(&told).map_err(|error| error.to_string()));
    let _gone_already = match line {
        Ok(mut line) => {
            line.push(b'\n');
            match connection.answer(&Answer::Ok).await {
                Ok(()) => connection.send(&line).await,
                gone => gone,
            }
        }
        Err(why) => connection.answer(&Answer::Error(why)).await,
    };
}

/// Tells a recorder of sessions until it hangs up.
async fn feed(
    recorders: &Arc<Recorders>,
    selection: Selection,
    mut connection: Connection,
    log: &SessionLog,
) {
    let mut recorder = match recorders.attach(selection) {
        Ok(recorder) => recorder,
        Err(error) => {
            let _gone_already = connection.answer(&Answer::Error(error.to_string())).await;
            return;
        }
    };
    log.notice(LogLevel::Info, "a recorder is attached: sessions that begin now are told to it");
    let mut there = connection.answer(&Answer::Ok).await.is_ok();
    while there {
        there = tokio::select! {
            octets = recorder.next() => connection.send(octets).await.is_ok(),
            () = connection.hung_up() => false,
        };
    }
    log.notice(LogLevel::Info, "a recorder is gone");
}
