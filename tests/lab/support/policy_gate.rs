//! A Postfix policy service (SMTPD_POLICY_README) that delays its response until the test releases it. It prolongs the
//! moment between the final dot and Postfix's reply to it.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::PATIENCE;

pub(crate) struct PolicyGate {
    socket: PathBuf,
    questions: Receiver<UnixStream>,
}

impl PolicyGate {
    pub(crate) fn open(socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
        let (sender, questions) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let sender = sender.clone();
                thread::spawn(move || pass_on_questions(connection.unwrap(), &sender));
            }
        });
        Self { socket, questions }
    }

    /// The restriction for Postfix's `main.cf`.
    pub(crate) fn restriction(&self) -> String {
        format!("check_policy_service unix:{}", self.socket.display())
    }

    /// Waits for Postfix's request; Postfix continues when the test responds, or never.
    #[track_caller]
    pub(crate) fn question(&self) -> Question {
        let connection = self.questions.recv_timeout(PATIENCE);
        Question(connection.expect("Postfix asks the policy service"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.socket
    }
}

/// A request to which Postfix waits for the response.
pub(crate) struct Question(UnixStream);

impl Question {
    pub(crate) fn answer_dunno(mut self) {
        self.0.write_all(b"action=dunno\n\n").unwrap();
    }
}

/// A request is lines of `name=value` up to an empty one.
fn pass_on_questions(connection: UnixStream, sender: &Sender<UnixStream>) {
    let answers = connection.try_clone().unwrap();
    for line in BufReader::new(connection).lines() {
        let Ok(line) = line else { return };
        if line.is_empty() && sender.send(answers.try_clone().unwrap()).is_err() {
            return;
        }
    }
}
