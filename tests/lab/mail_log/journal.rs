//! The journal, by a systemd-journald of the test's own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use gatepost::postfix::mail_log::{
    LogZone, MailLogEvent, MailLogFollower, MailLogSettings, MailLogSource, MailLogState,
};

use crate::harness::tests;
use crate::support::{Lab, PATIENCE, cannot_run, until};

tests!(the_journal_is_followed);

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";

/// The message of syslog(3), with facility mail.
fn line(pid: u32) -> String {
    format!(
        "<22>Dec  1 21:00:00 postfix/smtp[{pid}]: ABC{pid}: to=<u@b.example>, relay=a.example[192.0.2.1]:25, \
         delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)"
    )
}

/// journalctl is killed, and the entries that are written meanwhile are read once.
fn the_journal_is_followed() {
    for program in [JOURNALD, "/usr/bin/journalctl"] {
        if !fs::exists(program).unwrap() {
            cannot_run(format_args!("needs {program} (Debian package systemd)"));
        }
    }
    let lab = Lab::new();
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && \
         exec {JOURNALD}"
    );
    let journald = lab.client.spawn(["unshare", "--mount", "sh", "-c", &script]);
    let run = PathBuf::from(format!("/proc/{}/root/run", journald.id()));
    let socket = UnixDatagram::unbound().unwrap();
    until("journald's socket", || socket.connect(run.join("systemd/journal/dev-log")).ok());
    let send = |pids: std::ops::Range<u32>| {
        for pid in pids {
            until("room in the socket", || socket.send(line(pid).as_bytes()).ok());
        }
    };
    send(100..110);
    let directory = run.join("log/journal");
    // journalctl(1) may show only the end of entries that are being written while it starts.
    until("ten entries in the journal", || {
        let option = format!("--directory={}", directory.display());
        let entries =
            lab.client.output(["journalctl", "--output=cat", &option, "SYSLOG_FACILITY=2"]);
        (entries.stdout.split(|&byte| byte == b'\n').count() > 10).then_some(())
    });

    let settings = MailLogSettings {
        source: MailLogSource::Journal { directory: Some(directory) },
        history: 200 * 1000,
        zone: LogZone::utc(),
    };
    let mut follower = MailLogFollower::start(settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut take = |count: usize| {
        let mut found = Vec::new();
        while found.len() < count {
            let next = async { tokio::time::timeout(PATIENCE, follower.next()).await };
            let batch = runtime
                .block_on(next)
                .unwrap_or_else(|_| {
                    panic!("no events after {found:?}; {:?}", follower.status().borrow())
                })
                .expect("a running reader");
            found.extend(batch.into_iter().filter_map(|event| match event {
                MailLogEvent::Delivery(delivery) => delivery.queue_id[3..].parse::<u32>().ok(),
                MailLogEvent::Attempt(_) => None,
            }));
        }
        found
    };
    assert_eq!(take(10), (100..110).collect::<Vec<_>>());
    send(110..120);
    assert_eq!(take(10), (110..120).collect::<Vec<_>>());

    let reader = journalctl();
    nix::sys::signal::kill(reader, nix::sys::signal::Signal::SIGKILL).unwrap();
    send(120..130);
    assert_eq!(take(10), (120..130).collect::<Vec<_>>());
    assert_ne!(journalctl(), reader);
    let mut status = follower.status();
    assert_eq!(status.borrow().restarts, 1);
    let reading = status.wait_for(|status| status.state == MailLogState::Reading);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap() });

    let reader = journalctl();
    drop(follower);
    until("the end of journalctl", || {
        (!fs::exists(format!("/proc/{reader}/exe")).unwrap_or(false)).then_some(())
    });
}

/// The journalctl that this process has started.
fn journalctl() -> nix::unistd::Pid {
    until("a journalctl", || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut children = tasks.flat_map(|task| {
            let listing = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            listing.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        });
        let pid = children.find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "journalctl"
        })?;
        Some(nix::unistd::Pid::from_raw(pid.parse().ok()?))
    })
}
