//! A directory of reports about canaries: one file each, written by the mailbox and read by whoever compares.
//!
//! Base of layer 4. A file appears with its whole content, or not at all; the first report about a message stays. Files older
//! than a canary can be are removed.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::geteuid;

use crate::canary::{CanaryReport, CanaryToken, MAX_AGE, MAX_REPORT};
use crate::hmac_key::HmacKey;
use crate::time::Timestamp;

/// Why a report is not stored, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("cannot write a report to {}: {why}; {}", directory.display(), remedy(why, directory))]
pub struct StoreError {
    directory: PathBuf,
    why: io::Error,
}

fn remedy(why: &io::Error, directory: &Path) -> String {
    let directory = directory.display();
    let user = geteuid();
    match why.kind() {
        io::ErrorKind::NotFound => {
            format!("create the directory for this user: `install -d -o {user} {directory}`")
        }
        io::ErrorKind::NotADirectory => format!("name a directory, as {directory} is none"),
        io::ErrorKind::PermissionDenied => format!(
            "let user {user} write there: `chown {user} {directory}`, and let it enter the directories above"
        ),
        io::ErrorKind::StorageFull => {
            format!("free some space: `df {directory}` and `df -i {directory}` show what is used up")
        }
        io::ErrorKind::QuotaExceeded => format!("raise the disk quota of user {user}, or free some"),
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount the file system for writing, or name a directory elsewhere; under systemd, ReadWritePaths= permits one"
                .to_owned()
        }
        _ => "check the directory and its file system".to_owned(),
    }
}

/// Reports that are read at a time.
const MAX_REPORTS: usize = 1000;
const SUFFIX: &str = "json";

#[derive(Clone, Debug)]
pub struct ReportDirectory(PathBuf);

impl ReportDirectory {
    pub const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Stores a report, unless there is one about the same message. It is on disk when this returns.
    ///
    /// # Errors
    /// The directory is missing, or cannot be written to. Then there is no part of the report.
    pub fn store(&self, token: &CanaryToken, report: &CanaryReport) -> Result<(), StoreError> {
        let error = |why| StoreError { directory: self.0.clone(), why };
        self.write(token, report).map_err(error)
    }

    fn write(&self, token: &CanaryToken, report: &CanaryReport) -> io::Result<()> {
        let name = format!("{}-{}", token.pair, token.family);
        let file = self.0.join(&name).with_extension(SUFFIX);
        if file.exists() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(report)?;
        let temporary = self.0.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &file));
        if let Err(why) = written {
            let _not_created = fs::remove_file(&temporary);
            return Err(why);
        }
        // The name is on disk only then.
        fs::File::open(&self.0)?.sync_all()?;
        self.remove_old();
        Ok(())
    }

    /// The reports that are about canaries of `key`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(
        &self,
        key: &HmacKey,
        now: Timestamp,
    ) -> io::Result<Vec<(CanaryToken, CanaryReport)>> {
        let files = fs::read_dir(&self.0)?.flatten().map(|entry| entry.path());
        let reports = files.filter(|path| path.extension().is_some_and(|it| it == SUFFIX));
        let read = reports.take(MAX_REPORTS).filter_map(|path| {
            let mut bytes = Vec::new();
            let limit = MAX_REPORT as u64;
            fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
            let report: CanaryReport = serde_json::from_slice(&bytes).ok()?;
            let token = report.token(key, now).ok()?;
            Some((token, report))
        });
        Ok(read.collect())
    }

    /// Also the temporary files of killed processes.
    fn remove_old(&self) {
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let is_report = entry.path().extension().is_some_and(|it| it == SUFFIX);
            let is_ours = is_report || is_temporary(&entry.file_name());
            let modified = entry.metadata().and_then(|data| data.modified());
            let age = modified.ok().and_then(|time| now.duration_since(time).ok());
            if is_ours && age.is_some_and(|age| age > MAX_AGE) {
                let _next_time = fs::remove_file(entry.path());
            }
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    // Names filters and addresses of the site.
    options.write(true).create(true).truncate(true).mode(0o640);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `.0123456789abcdef-ipv6.4711`
fn is_temporary(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.strip_prefix('.')?.rsplit_once('.'));
    parts.is_some_and(|(report, process)| {
        let is_report = report.ends_with("-ipv4") || report.ends_with("-ipv6");
        is_report && process.parse::<u32>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::canary::{CanaryDirection, HeaderJudgement, PairId};

    #[test]
    fn reports_come_back_to_the_owner_of_the_key() {
        let folder = std::env::temp_dir().join(format!("gatepost-reports-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let reports = ReportDirectory::new(folder.clone());
        let key = HmacKey::parse("0b".repeat(32).as_bytes()).unwrap();
        let now = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let token = |family| {
            let pair = PairId::new([7; 8]);
            CanaryToken { pair, family, direction: CanaryDirection::Inbound, sent: now }
        };
        for family in Family::ALL {
            let recipient = "a@b.example".to_owned();
            let message_id = token(family).message_id(&recipient, "v.example", &key);
            let judgement = HeaderJudgement::default();
            let report = CanaryReport { message_id, recipient, received: now, judgement };
            reports.store(&token(family), &report).unwrap();
            // The first counts.
            let again = CanaryReport { received: Timestamp::default(), ..report };
            reports.store(&token(family), &again).unwrap();
        }
        fs::write(folder.join("other.json"), "{}").unwrap();
        let mut found = reports.read(&key, now).unwrap();
        found.sort_by_key(|(token, _)| token.family);
        let tokens: Vec<_> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, Family::ALL.map(token));
        assert!(found.iter().all(|(_, report)| report.received == now));
        let other = HmacKey::parse("0c".repeat(32).as_bytes()).unwrap();
        assert!(reports.read(&other, now).unwrap().is_empty());

        let old = fs::File::options().write(true).open(folder.join("other.json")).unwrap();
        old.set_modified(SystemTime::now() - 2 * MAX_AGE).unwrap();
        let killed = folder.join(".0123456789abcdef-ipv6.4711");
        let others = folder.join(".profile.4711");
        for path in [&killed, &others] {
            let file = fs::File::create(path).unwrap();
            file.set_modified(SystemTime::now() - 2 * MAX_AGE).unwrap();
        }
        let pair = PairId::new([8; 8]);
        let (_, report) = &found[0];
        reports.store(&CanaryToken { pair, ..token(Family::Ipv4) }, report).unwrap();
        assert!(!folder.join("other.json").exists());
        assert!(!killed.exists() && others.exists());
        fs::remove_dir_all(&folder).unwrap();
        assert!(reports.read(&key, now).is_err());
        assert!(reports.store(&token(Family::Ipv4), &found[0].1).is_err());
    }

    #[test]
    fn each_error_has_its_remedy() {
        use nix::errno::Errno;
        for (errno, expected) in [
            (Errno::ENOENT, "create the directory for this user: `install -d -o "),
            (Errno::ENOTDIR, "name a directory, as /var/lib/canary is none"),
            (Errno::EACCES, "/var/lib/canary`, and let it enter the directories above"),
            (Errno::ENOSPC, "free some space: `df /var/lib/canary`"),
            (Errno::EDQUOT, "raise the disk quota of user "),
            (Errno::EROFS, "mount the file system for writing"),
            (Errno::EIO, "check the directory and its file system"),
        ] {
            let (directory, why) = (PathBuf::from("/var/lib/canary"), errno.into());
            let text = StoreError { directory, why }.to_string();
            assert!(text.starts_with("cannot write a report to /var/lib/canary: "), "{text}");
            assert!(text.contains(expected), "{text}");
            assert!(text.contains(&format!("(os error {})", errno as i32)), "{text}");
        }
    }
}
