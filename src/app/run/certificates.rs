//! The gateway's certificates: loaded before rights are dropped, loaded again when their files change.
//!
//! Renewal tools replace a certificate and its key one after the other, so a change counts once it has rested for a tick. What
//! does not fit then is refused, with a notice, and what is in use stays in use.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use anyhow::Context as _;

use crate::humanize::duration;
use crate::relay::{CertificateInspector, ClientTls};
use crate::report::LogLevel;
use crate::time::Timestamp;
use crate::tls::{CertificateFacts, LoadedTls, TicketKeys, TlsSettings};

/// From this remaining validity on the log warns, once a day.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Identifies a file's content: device, inode, length and time of change in nanoseconds. `None` if it cannot be examined.
type FileStamp = Option<(u64, u64, u64, i64)>;

pub(super) struct Certificates {
    settings: TlsSettings,
    tickets: TicketKeys,
    loaded: LoadedTls,
    /// Of the files as they were loaded, or refused.
    stamps: Vec<FileStamp>,
    /// Of changed files that have not rested yet.
    changing: Option<Vec<FileStamp>>,
    /// Why the files as they are now are not in use.
    refused: Option<String>,
    /// Day on which the log last warned of the expiry, since the epoch.
    warned_on: u64,
}

/// What a look at the files led to.
#[derive(Debug)]
pub(super) enum CertificateChange {
    None,
    /// New certificates are in use from now on.
    Loaded,
    /// They do not fit; the ones before stay in use.
    Refused(String),
}

impl Certificates {
    /// # Errors
    /// A certificate or key cannot be used; an expired one can, as without the gateway.
    pub(super) fn load(settings: &TlsSettings) -> anyhow::Result<Self> {
        let stamps = stamps(settings);
        let tickets = TicketKeys::new()?;
        let loaded = LoadedTls::load(settings, &tickets).context("[tls]")?;
        let settings = settings.clone();
        let (changing, refused, warned_on) = (None, None, 0);
        Ok(Self { settings, tickets, loaded, stamps, changing, refused, warned_on })
    }

    pub(super) fn client_tls(&self) -> ClientTls {
        let inspector = self.loaded.client_certificates.clone().map(|requested| {
            let inspect: CertificateInspector = Arc::new(move |chain| requested.inspect(chain));
            inspect
        });
        ClientTls { config: Arc::clone(&self.loaded.config), inspector }
    }

    /// Those in use.
    pub(super) fn facts(&self) -> &[CertificateFacts] {
        &self.loaded.certificates
    }

    /// Why changed files are not in use.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether the default certificate, which most senders get, can be used.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.loaded.certificates.first().is_some_and(|first| first.not_after >= now)
    }

    /// Looks whether the files have changed, and loads them once they rest.
    pub(super) fn check_files(&mut self, now: Timestamp) -> CertificateChange {
        let found = stamps(&self.settings);
        if found == self.stamps {
            self.changing = None;
            return CertificateChange::None;
        }
        if self.changing.as_ref() != Some(&found) {
            self.changing = Some(found);
            return CertificateChange::None;
        }
        self.reload(&self.settings.clone(), now)
    }

    /// Loads the files of `settings` now, as on SIGHUP, unless they are the ones in use.
    pub(super) fn reload(&mut self, settings: &TlsSettings, now: Timestamp) -> CertificateChange {
        let found = stamps(settings);
        if found == self.stamps && *settings == self.settings && self.refused.is_none() {
            return CertificateChange::None;
        }
        let loaded = LoadedTls::load(settings, &self.tickets).map_err(|error| error.to_string());
        let fitting = loaded.and_then(|loaded| match loaded.expired(now) {
            // A renewal that is out of date replaces nothing that is not.
            Some(expired) if self.loaded.expired(now).is_none() => {
                let file = expired.files.certificate.display();
                Err(format!("the certificate in {file} expired at {}: renew it", expired.not_after))
            }
            _ => Ok(loaded),
        });
        self.changing = None;
        self.stamps = found;
        match fitting {
            Ok(loaded) => {
                (self.loaded, self.refused, self.warned_on) = (loaded, None, 0);
                self.settings = settings.clone();
                CertificateChange::Loaded
            }
            Err(why) => {
                self.refused = Some(why.clone());
                CertificateChange::Refused(why)
            }
        }
    }

    /// What the log should contain about the time that is left, once a day.
    pub(super) fn expiry_notice(&mut self, now: Timestamp) -> Option<(LogLevel, String)> {
        let since = now.to_system_time().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let today = since.as_secs() / DAY.as_secs();
        let notice = self.expiry(now).filter(|_| self.warned_on != today)?;
        self.warned_on = today;
        Some(notice)
    }

    /// About the certificate that ends first, from two weeks before its end on.
    fn expiry(&self, now: Timestamp) -> Option<(LogLevel, String)> {
        let first = self.loaded.certificates.iter().min_by_key(|one| one.not_after)?;
        let file = first.files.certificate.display();
        if first.not_after < now {
            let since = duration(now - first.not_after);
            let effect = "senders that verify it cannot deliver";
            let notice = format!("the certificate in {file} expired {since} ago: {effect}");
            return Some((LogLevel::Error, notice));
        }
        let left = first.not_after - now;
        (left < EXPIRES_SOON).then(|| {
            let left = duration(left);
            (LogLevel::Warn, format!("the certificate in {file} expires in {left}: renew it"))
        })
    }

    /// What is wrong with them, for the status page.
    pub(super) fn warning(&self, now: Timestamp) -> Option<String> {
        let refused = self.refused.as_ref();
        let refused = refused
            .map(|why| format!("Changed certificates are not in use, those before are: {why}"));
        refused.or_else(|| Some(sentence(&self.expiry(now)?.1)))
    }

    /// Files that this process may not read again, now that it has dropped its rights: a renewal needs a restart.
    pub(super) fn unreadable(&self) -> Option<String> {
        let unreadable = files(&self.settings).find_map(|path| {
            let error = fs::File::open(path).err()?;
            (error.kind() == io::ErrorKind::PermissionDenied).then(|| path.display().to_string())
        })?;
        Some(format!(
            "{unreadable} was read as root and cannot be read again as the user of [process]: after a renewal restart gatepost, \
             or let that user read it (`setfacl -m u:gatepost:r`, or a group)"
        ))
    }
}

/// With a capital letter.
fn sentence(notice: &str) -> String {
    let mut letters = notice.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn files(settings: &TlsSettings) -> impl Iterator<Item = &Path> {
    let pairs = settings.certificates.iter();
    let own = pairs.flat_map(|pair| [pair.certificate.as_path(), pair.key.as_path()]);
    own.chain(settings.client_ca.as_deref())
}

fn stamps(settings: &TlsSettings) -> Vec<FileStamp> {
    let stamp = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        let changed = found.ctime().wrapping_mul(1_000_000_000).wrapping_add(found.ctime_nsec());
        Some((found.dev(), found.ino(), found.len(), changed))
    };
    files(settings).map(stamp).collect()
}
