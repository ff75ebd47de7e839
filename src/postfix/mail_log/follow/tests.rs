//! Files as they are written, rotated and truncated.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::LogZone;
use super::*;

/// Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("gatepost-mail-log-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("mail.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The line of a message that was delivered.
fn line(number: u32) -> String {
    format!(
        "2026-12-01T21:00:00+00:00 mx postfix/smtp[{number}]: {:06X}: to=<u@b.example>, \
         relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)\n",
        0x10_0000 + number
    )
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(line).collect()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

struct Reader {
    runtime: tokio::runtime::Runtime,
    follower: MailLogFollower,
}

impl Reader {
    fn start(path: &Path, history: u64) -> Self {
        let source = MailLogSource::File(path.to_owned());
        Self::new(MailLogFollower::start(MailLogSettings { source, history, zone: LogZone::utc() }))
    }

    fn new(follower: io::Result<MailLogFollower>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, follower: follower.unwrap() }
    }

    /// The numbers of the next so many deliveries.
    #[track_caller]
    fn take(&mut self, count: usize) -> Vec<u32> {
        let mut found = Vec::new();
        while found.len() < count {
            let next = async { tokio::time::timeout(PATIENCE, self.follower.next()).await };
            let batch = self.runtime.block_on(next).expect("events").expect("a running reader");
            found.extend(batch.iter().filter_map(|event| match event {
                MailLogEvent::Delivery(delivery) => {
                    Some(u32::from_str_radix(&delivery.queue_id, 16).unwrap() - 0x10_0000)
                }
                MailLogEvent::Attempt(_) => None,
            }));
        }
        found
    }

    #[track_caller]
    fn wait_for(&self, wanted: impl Fn(&MailLogState) -> bool) -> MailLogState {
        let mut status = self.follower.status();
        let wait = async {
            let reached = status.wait_for(|status| wanted(&status.state));
            tokio::time::timeout(PATIENCE, reached).await.expect("the state").unwrap().state.clone()
        };
        self.runtime.block_on(wait)
    }
}

#[test]
fn an_empty_batch_follows_the_history_and_nothing_else() {
    let folder = Folder::new();
    append(&folder.path(), &lines(0..4));
    let mut reader = Reader::start(&folder.path(), u64::MAX);
    assert_eq!(reader.take(4), [0, 1, 2, 3]);
    let mut next = || {
        let next = async { tokio::time::timeout(PATIENCE, reader.follower.next()).await };
        reader.runtime.block_on(next).expect("a batch").expect("a running reader")
    };
    // The parser may send the last attempt later.
    while !next().is_empty() {}
    append(&folder.path(), &lines(4..5));
    assert!(!next().is_empty());
}

#[test]
fn history_begins_with_a_whole_line() {
    let folder = Folder::new();
    append(&folder.path(), &lines(0..4));
    let one = line(0).len() as u64;
    for (history, first) in
        [(0, 4), (one - 1, 4), (one, 3), (one + 1, 3), (3 * one, 1), (9 * one, 0)]
    {
        let path = folder.path();
        let mut reader = Reader::start(&path, history);
        reader.wait_for(|state| *state == MailLogState::Reading);
        append(&path, &line(4));
        let expected: Vec<u32> = (first..5).collect();
        assert_eq!(reader.take(expected.len()), expected, "{history}");
        fs::write(&path, lines(0..4)).unwrap();
    }
}

#[test]
fn a_renamed_file_is_read_to_its_end() {
    let folder = Folder::new();
    let path = folder.path();
    append(&path, &lines(0..2));
    let mut reader = Reader::start(&path, u64::MAX);
    assert_eq!(reader.take(2), [0, 1]);
    let old = folder.0.join("mail.log.1");
    fs::rename(&path, &old).unwrap();
    File::create(&path).unwrap();
    // The writer changes to the new file only later.
    append(&old, &line(2));
    assert_eq!(reader.take(1), [2]);
    append(&old, &line(3));
    append(&path, &lines(4..6));
    assert_eq!(reader.take(3), [3, 4, 5]);
    assert_eq!(reader.follower.status().borrow().restarts, 1);
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let folder = Folder::new();
    let path = folder.path();
    append(&path, &lines(0..2));
    append(&path, "a line that is never fini");
    let mut reader = Reader::start(&path, u64::MAX);
    assert_eq!(reader.take(2), [0, 1]);
    // In one step to a larger size.
    fs::write(folder.0.join("new"), lines(2..9)).unwrap();
    let new = fs::read(folder.0.join("new")).unwrap();
    File::options().write(true).truncate(true).open(&path).unwrap().write_all(&new).unwrap();
    assert_eq!(reader.take(7), (2..9).collect::<Vec<_>>());
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, &line(9));
    assert_eq!(reader.take(1), [9]);
}

#[test]
fn a_file_that_is_not_there_yet() {
    let folder = Folder::new();
    let path = folder.path();
    let mut reader = Reader::start(&path, 0);
    reader.wait_for(|state| *state == MailLogState::Waiting);
    append(&path, &line(7));
    assert_eq!(reader.take(1), [7]);
    reader.wait_for(|state| *state == MailLogState::Reading);
}

#[test]
fn a_folder_is_no_log() {
    let folder = Folder::new();
    let reader = Reader::start(&folder.0, 0);
    let state = reader.wait_for(|state| matches!(state, MailLogState::Failed(_)));
    let expected = format!(
        "{}: it is not a regular file; set mail_log to Postfix's log file, to \"journal\" or to \"-\"",
        folder.0.display()
    );
    assert_eq!(state.to_string(), expected);
}

#[test]
fn a_slow_receiver_loses_nothing() {
    let folder = Folder::new();
    let path = folder.path();
    // More than all batches take.
    let count = 60_000;
    append(&path, &lines(0..count));
    let size = fs::metadata(&path).unwrap().len();
    let mut reader = Reader::start(&path, u64::MAX);
    let mut found = reader.take(1);
    let read = reader.follower.status().borrow().bytes;
    assert!(read < size, "the thread waits after {read} bytes of {size}");
    found.extend(reader.take(count as usize - found.len()));
    assert_eq!(found, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_pipe_ends() {
    let (mut writer, pipe) = UnixStream::pair().unwrap();
    let (_running, stop) = UnixStream::pair().unwrap();
    let (sender, mut batches) = mpsc::channel(BATCHES);
    let (status, state) = watch::channel(MailLogStatus::default());
    let feed = Feed::new(LogZone::utc(), sender, status, stop);
    let thread = thread::spawn(move || stdin::follow(pipe, feed));
    writer.write_all(lines(0..2).trim_end().as_bytes()).unwrap();
    drop(writer);
    thread.join().unwrap().unwrap();
    let mut deliveries = 0;
    while let Ok(batch) = batches.try_recv() {
        deliveries += batch.iter().filter(|e| matches!(e, MailLogEvent::Delivery(_))).count();
    }
    assert_eq!(deliveries, 2);
    assert_eq!(state.borrow().state, MailLogState::Ended);
    assert_eq!(state.borrow().counts.smtp_lines, 2);
}
