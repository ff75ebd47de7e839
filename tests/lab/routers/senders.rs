//! Clients that send mail all the time, each message until it is accepted, as mail servers do.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::support::{DOMAIN, Host, Smtp, dot_stuffed, until};

/// Concurrent clients in each family.
const CLIENTS: usize = 3;

/// Before a message is tried again.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Senders<'a> {
    host: &'a Host,
    entrances: [SocketAddr; 2],
    accepted: AtomicUsize,
    over: AtomicBool,
}

pub(super) struct Started<'scope, 'a> {
    senders: &'scope Senders<'a>,
    threads: Vec<ScopedJoinHandle<'scope, Vec<String>>>,
}

impl<'a> Senders<'a> {
    pub(super) fn new(host: &'a Host, entrances: [SocketAddr; 2]) -> Self {
        Self { host, entrances, accepted: AtomicUsize::new(0), over: AtomicBool::new(false) }
    }

    pub(super) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Started<'scope, 'a> {
        let clients = (0..CLIENTS).flat_map(|client| self.entrances.map(|to| (client, to)));
        let threads = clients.map(|(client, to)| scope.spawn(move || self.send(client, to)));
        Started { senders: self, threads: threads.collect() }
    }

    /// Returns the recipients of the messages that were accepted.
    fn send(&self, client: usize, to: SocketAddr) -> Vec<String> {
        let family = if to.is_ipv6() { 6 } else { 4 };
        let mut sent = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let recipient = format!("load-{family}-{client}-{}@{DOMAIN}", sent.len());
            while let Err(error) = self.attempt(to, &recipient) {
                if self.over.load(Ordering::Relaxed) {
                    return sent;
                }
                println!("{recipient} again, after: {error}");
                thread::sleep(PAUSE);
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            sent.push(recipient);
        }
        sent
    }

    fn attempt(&self, to: SocketAddr, recipient: &str) -> io::Result<()> {
        let mut smtp = Smtp::new(self.host.connect(to)?);
        expect(&mut smtp, 220)?;
        let mail = "MAIL FROM:<sender@example.net>";
        let rcpt = format!("RCPT TO:<{recipient}>");
        for (command, code) in
            [("EHLO client.example.net", 250), (mail, 250), (rcpt.as_str(), 250), ("DATA", 354)]
        {
            smtp.raw(format!("{command}\r\n").as_bytes())?;
            expect(&mut smtp, code)?;
        }
        smtp.raw(&dot_stuffed(format!("Subject: load\r\n\r\n{recipient}\r\n").as_bytes()))?;
        expect(&mut smtp, 250)?;
        let _ = smtp.raw(b"QUIT\r\n");
        Ok(())
    }
}

impl Started<'_, '_> {
    /// Waits until that many more messages are accepted.
    pub(super) fn wait_for(&self, more: usize) {
        let accepted = &self.senders.accepted;
        let wanted = accepted.load(Ordering::Relaxed) + more;
        until(format_args!("{wanted} messages accepted"), || {
            (accepted.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Ends the clients and returns the recipients of all accepted messages, sorted.
    pub(super) fn stop(mut self) -> Vec<String> {
        self.senders.over.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let mut sent: Vec<String> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        sent.sort_unstable();
        sent
    }
}

impl Drop for Started<'_, '_> {
    /// Ends the clients also if an assertion fails.
    fn drop(&mut self) {
        self.senders.over.store(true, Ordering::Relaxed);
    }
}

fn expect(smtp: &mut Smtp, code: u16) -> io::Result<()> {
    let reply = smtp.reply()?;
    if reply.code == code {
        return Ok(());
    }
    Err(io::Error::other(format!("{} {:?} instead of {code}", reply.code, reply.lines)))
}
