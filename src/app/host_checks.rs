//! What a configuration needs of this host besides addresses: a readable key, secrets that only the gateway can read, an
//! account without power.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, User, geteuid};

use crate::app::upstream_tls::upstream_tls;
use crate::config::Config;
use crate::lookup::vantage::SharedKey;
use crate::tls::{LoadedTls, TicketKeys};

const GROUP_READS: u32 = 0o040;
const OTHERS_READ: u32 = 0o004;

/// Why a gateway with this configuration would not start, or would lack a part.
pub(super) fn errors(config: &Config) -> Vec<String> {
    let key = config.vantage.as_ref().map(|vantage| SharedKey::read(&vantage.key));
    let error = key.and_then(Result::err).map(|error| format!("vantage.key_file: {error}"));
    let canary = config.canary.as_ref().map(|canary| SharedKey::read(&canary.key));
    let canary_error =
        canary.and_then(Result::err).map(|error| format!("canary.key_file: {error}"));
    let tls = config.tls.as_ref().map(|tls| LoadedTls::load(tls, &TicketKeys::new()?));
    let tls_error = tls.and_then(Result::err).map(|error| format!("[tls]: {error}"));
    let upstream_error = upstream_tls(config).err().map(|error| format!("{error:#}"));
    error.into_iter().chain(canary_error).chain(tls_error).chain(upstream_error).collect()
}

/// Secrets that other accounts of this host can read; `path` is the configuration file.
pub(super) fn warnings(config: &Config, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.lookup.redis.as_deref().is_some_and(has_password)
        && let Some(readers) = readers(path)
    {
        warnings.push(format!(
            "the configuration has the password of lookup.redis and can be read by {readers}; {}",
            remedy(path)
        ));
    }
    if let Some(vantage) = &config.vantage
        && let Some(readers) = readers(&vantage.key)
    {
        let key = vantage.key.display();
        warnings.push(format!(
            "vantage.key_file: {key} can be read by {readers}; {}",
            remedy(&vantage.key)
        ));
    }
    if let Some(canary) = &config.canary
        && let Some(readers) = readers(&canary.key)
    {
        let key = canary.key.display();
        warnings.push(format!(
            "canary.key_file: {key} can be read by {readers}; {}",
            remedy(&canary.key)
        ));
    }
    for pair in config.tls.iter().flat_map(|tls| &tls.certificates) {
        if let Some(readers) = readers(&pair.key) {
            let key = pair.key.display();
            warnings.push(format!("[tls]: {key} can be read by {readers}; {}", remedy(&pair.key)));
        }
    }
    warnings
}

/// A gateway that stays root, without `[process] user` and without a service manager that switches the account.
pub(super) fn root_warning() -> Option<String> {
    geteuid().is_root().then(|| {
        "the gateway runs as root; set user in [process], or User= in the systemd unit, so that a fault in it is not one of \
         root"
            .to_owned()
    })
}

fn remedy(path: &Path) -> String {
    format!(
        "`chmod 600 {0}`, or `chmod 640 {0}` with the group of the gateway's account",
        path.display()
    )
}

/// The accounts besides the owner that can read the file; `None` if there are none, or there is no such file.
fn readers(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    if file.mode() & OTHERS_READ != 0 {
        return Some("every account of this host".to_owned());
    }
    let group = Gid::from_raw(file.gid());
    if file.mode() & GROUP_READS == 0 || is_of_one_account(group) {
        return None;
    }
    let name = Group::from_gid(group).ok().flatten().map(|group| group.name);
    Some(match name {
        Some(name) => format!("the group {name}"),
        None => format!("the group {group}"),
    })
}

/// The group that a service's account has for itself: `adduser --system --group` makes it. Not that of root.
fn is_of_one_account(group: Gid) -> bool {
    let Some(group) = Group::from_gid(group).ok().flatten() else { return false };
    let account = User::from_name(&group.name).ok().flatten();
    let is_own = account.is_some_and(|account| account.gid == group.gid && !account.uid.is_root());
    is_own && group.mem.is_empty()
}

/// `redis://user:password@host`, or `?pass=` for a Unix socket.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let user_info = authority.rsplit_once('@').map(|(user, _)| user);
    let in_user = user_info.and_then(|user| user.split_once(':'));
    in_user.is_some_and(|(_, password)| !password.is_empty())
        || path
            .split(['?', '&'])
            .any(|part| part.strip_prefix("pass=").is_some_and(|it| !it.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// Removed on drop.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("gatepost-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, mode: u32, content: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn config(redis: &str, key: &Path) -> Config {
        let text = format!(
            "smtp.hostname = \"mx.example.org\"\nlisten.addresses = [\"[::1]:2525\"]\nupstream.addresses = [\"[::1]:25\"]\n\
             [lookup]\nredis = {redis:?}\n\
             [vantage]\naddress = \"[2001:db8:2::9]:9626\"\nkey_file = {key:?}\ndomains = [\"example.org\"]\n"
        );
        Config::parse(&text, "gatepost.toml").unwrap()
    }

    #[test]
    fn secrets_that_others_can_read_are_named() {
        let folder = Folder::new("secrets");
        let hex = "0f".repeat(32);
        for (mode, is_exposed) in
            [(0o600, false), (0o400, false), (0o644, true), (0o640, true), (0o604, true)]
        {
            let file = folder.file("gatepost.toml", mode, "");
            let key = folder.file("key", mode, &hex);
            let config = config("redis://:secret@192.0.2.6/", &key);
            let warnings = warnings(&config, &file);
            assert_eq!(warnings.len(), if is_exposed { 2 } else { 0 }, "{mode:o}: {warnings:?}");
            if is_exposed {
                assert!(warnings[0].contains("password of lookup.redis"), "{warnings:?}");
                assert!(warnings[1].starts_with(&format!("vantage.key_file: {}", key.display())));
                assert!(warnings[1].contains("`chmod 600 "), "{warnings:?}");
            }
            assert!(errors(&config).is_empty());
        }
        // Without a secret the file may be read.
        let (file, key) =
            (folder.file("gatepost.toml", 0o644, ""), folder.file("key", 0o600, &hex));
        assert!(warnings(&config("redis://192.0.2.6/", &key), &file).is_empty());
    }

    #[test]
    fn a_key_that_cannot_be_used_is_an_error() {
        let folder = Folder::new("keys");
        let missing = folder.0.join("no-key");
        let given = errors(&config("redis://192.0.2.6/", &missing));
        assert_eq!(given.len(), 1);
        let expected = format!("vantage.key_file: cannot read the key in {}", missing.display());
        assert!(given[0].starts_with(&expected), "{given:?}");
        let short = folder.file("short", 0o600, "0f0f");
        let given = errors(&config("redis://192.0.2.6/", &short));
        assert!(given[0].contains("expected 64 hexadecimal digits"), "{given:?}");
    }

    #[test]
    fn passwords_in_urls_are_found() {
        for (url, expected) in [
            ("redis://192.0.2.6:6379/0", false),
            ("redis://user@192.0.2.6", false),
            ("redis://:secret@192.0.2.6", true),
            ("redis://user:s@cret@192.0.2.6/1", true),
            ("redis+unix:///run/redis.sock?db=1&pass=secret", true),
            ("redis+unix:///run/redis.sock?pass=", false),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }
}
