//! The speed of reading Postfix's mail log.
//!
//! `cargo bench --bench mail_log` reads 1 GB of log in one thread and prints MB/s, whose target is 200, and the peak of
//! resident memory beyond that of the log in memory. The log repeats a recorded one (`tests/mail_log/`) between lines of the
//! programs that every message passes, with process and queue IDs of their own in each round. Without `--bench` it only
//! checks that the benchmark works.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gatepost::postfix::mail_log::{LogZone, MailLogParser};
use gatepost::time::Timestamp;

#[path = "quick.rs"]
mod quick;

/// MB/s.
const TARGET: f64 = 200.0;
const TOTAL: usize = 1_000_000_000;
const QUICK_TOTAL: usize = 20_000_000;
/// Bytes of one read, as of the follower.
const READ: usize = 256 * 1024;
/// Bytes that are made before they are read, so that making them takes no part in the measured time.
const PART: usize = 16 << 20;
/// Growth of resident memory from the middle to the end.
const MAX_GROWTH_KIB: u64 = 4 * 1024;

const LOG: &str = include_str!("../mail_log/postfix-3.7.log");
/// 2026-12-31T00:00:00Z.
const REFERENCE: Timestamp = Timestamp::from_nanos(1_798_675_200_000_000_000);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let quick = quick::is_quick()?;
    let total = if quick { QUICK_TOTAL } else { TOTAL };
    let mut parser = MailLogParser::new(LogZone::utc(), REFERENCE);
    let (mut read, mut events, mut round) = (0, 0, 0_u32);
    let (mut spent, mut log, mut out) = (Duration::ZERO, String::new(), Vec::new());
    let (mut before, mut middle) = (None, 0);
    while read < total {
        log.clear();
        while log.len() < PART {
            write_round(&mut log, round)?;
            round += 1;
        }
        let before = *before.get_or_insert(resident_kib("VmRSS:")?);
        let start = Instant::now();
        for bytes in log.as_bytes().chunks(READ) {
            parser.on_bytes(bytes, &mut out);
            events += out.len();
            out.clear();
        }
        spent += start.elapsed();
        read += log.len();
        if read >= total / 2 && middle == 0 {
            middle = resident_kib("VmRSS:")?.saturating_sub(before);
        }
    }
    let start = Instant::now();
    parser.finish(&mut out);
    spent += start.elapsed();
    events += out.len();

    let peak = resident_kib("VmHWM:")?.saturating_sub(before.unwrap_or_default());
    let counts = parser.counts();
    let speed = read as f64 / 1e6 / spent.as_secs_f64();
    println!(
        "{} MB, {round} rounds, {} lines of smtp(8), {} not understood, {events} events",
        read / 1_000_000,
        counts.smtp_lines,
        counts.not_understood
    );
    println!(
        "{speed:.0} MB/s (target {TARGET}), {peak} KiB at the peak, {middle} KiB in the middle"
    );
    ensure!(counts.not_understood == 0, "lines are not understood");
    ensure!(quick || peak <= middle + MAX_GROWTH_KIB, "memory grows with the log");
    ensure!(quick || speed >= TARGET, "slower than the target");
    Ok(())
}

/// The recorded log, with IDs of its own and the lines of an incoming message before each delivery.
fn write_round(log: &mut String, round: u32) -> Result<()> {
    for line in LOG.lines() {
        let (head, rest) = line.split_once('[').context("a process ID")?;
        let (pid, rest) = rest.split_once("]: ").context("a message")?;
        let pid = pid.parse::<u32>()? + round % 30_000;
        match rest.split_once(": ") {
            Some((id, text)) if id.len() > 8 && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let id = u64::from_str_radix(id, 16)? + u64::from(round) * 0x1000_0000;
                if text.contains("(queue active)") {
                    write_incoming(log, line.get(..16).unwrap_or_default(), id)?;
                }
                writeln!(log, "{head}[{pid}]: {id:X}: {text}")?;
            }
            _ => writeln!(log, "{head}[{pid}]: {rest}")?,
        }
    }
    Ok(())
}

/// Lines of smtpd(8), cleanup(8) and others about a message.
fn write_incoming(log: &mut String, at: &str, id: u64) -> Result<()> {
    writeln!(
        log,
        "{at}mx postfix/smtpd[4711]: connect from mail-a.sender.example[192.0.2.77]
{at}mx postfix/smtpd[4711]: Anonymous TLS connection established from mail-a.sender.example[192.0.2.77]: TLSv1.3 with \
cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits)
{at}mx postfix/smtpd[4711]: {id:X}: client=mail-a.sender.example[192.0.2.77]
{at}mx postfix/cleanup[4712]: {id:X}: message-id=<20261201210000.{id}@mail-a.sender.example>
{at}mx opendkim[812]: {id:X}: DKIM-Signature field added (s=mail, d=sender.example)
{at}mx postfix/smtpd[4711]: disconnect from mail-a.sender.example[192.0.2.77] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 \
quit=1 commands=7
{at}mx dovecot: imap-login: Login: user=<someone>, method=PLAIN, rip=192.0.2.78, lip=192.0.2.1, mpid=4713, TLS
{at}mx postfix/qmgr[4710]: {id:X}: removed"
    )?;
    Ok(())
}

/// A field of `/proc/self/status` in KiB.
fn resident_kib(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}
