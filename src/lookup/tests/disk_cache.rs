//! The cache file: restarts, damage, kill -9.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::clock::now;
use super::super::{
    CacheLimits, DiskCacheError, LookupService, LookupSettings, ProbeSettings, purge_disk_cache,
    read_disk_cache,
};
use super::lookup;
use super::service::settings;
use crate::policy::facts::{
    Answer, AnswerKind, Lookup, LookupKind, LookupObserver, LookupResult, Reason, Resolution,
    Source,
};

/// Removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gatepost-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("facts.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _result = fs::remove_dir_all(&self.0);
    }
}

fn with(file: &Path) -> LookupSettings {
    // No DNS queries here.
    let probes = ProbeSettings { callouts: true, ..ProbeSettings::default() };
    let nowhere = settings((Ipv4Addr::LOCALHOST, 9).into());
    LookupSettings { cache_file: Some(file.to_owned()), probes, ..nowhere }
}

fn begin(settings: LookupSettings) -> (LookupService, Vec<String>) {
    LookupService::start(settings, Arc::new(())).unwrap()
}

fn lookup_result(answer: Answer, source: Source) -> LookupResult {
    LookupResult { answer, source, at: Some(now()) }
}

/// One answer of each form, with its TTL.
fn samples() -> Vec<(Lookup, LookupResult, Duration)> {
    let minute = Duration::from_secs(60);
    let ip = "2001:db8::25".parse().unwrap();
    let path = String::from("\"a b\"@a.example");
    let of = |text| match lookup(text) {
        Lookup::MailExchanges(name) => {
            crate::policy::facts::DnsRecord::Exchange { preference: 10, host: name }
        }
        Lookup::Reverse(ip) => crate::policy::facts::DnsRecord::Address(ip),
        _ => panic!("no record: {text}"),
    };
    let records = Answer::Records(vec![of("MX mx.a.example"), of("PTR ::ffff:192.0.2.1")]);
    let no = Answer::No(Reason::NoSuchMailbox, Some(String::from("550 5.1.1")));
    vec![
        (lookup("MX a.example"), lookup_result(records, Source::Dns), minute),
        (lookup("PTR 2001:db8::25"), lookup_result(Answer::NxDomain, Source::Dns), minute),
        (lookup("AAAA a.example"), lookup_result(Answer::NoData, Source::Dns), minute),
        (Lookup::Greet(ip), lookup_result(Answer::Yes(None), Source::Probe), minute),
        (Lookup::Callout(ip, path), lookup_result(no, Source::Probe), minute),
    ]
}

#[tokio::test]
async fn answers_survive_a_restart_and_expired_ones_do_not() {
    let folder = Folder::new("restart");
    let (service, notices) = begin(with(&folder.file()));
    assert!(notices.is_empty(), "{notices:?}");
    for (lookup, result, ttl) in samples() {
        service.insert(lookup, result, ttl);
    }
    let expired = lookup("MX expired.example");
    service.insert(
        expired.clone(),
        lookup_result(Answer::NxDomain, Source::Dns),
        Duration::from_millis(1),
    );
    // Unknown answers are not written.
    let unknown = lookup("MX unknown.example");
    let servfail = lookup_result(Answer::Unknown(Reason::Servfail), Source::Dns);
    service.insert(unknown, servfail, Duration::from_secs(60));
    service.flush();
    drop(service);
    // The one that expires has.
    std::thread::sleep(Duration::from_millis(10));
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (service, notices) = begin(with(&folder.file()));
    assert!(notices.is_empty(), "{notices:?}");
    for (lookup, result, _) in samples() {
        let known = service.lookup(&lookup).await;
        assert_eq!((known.answer, known.source), (result.answer, result.source));
    }
    assert_eq!(service.entries(|_| true).len(), samples().len());
    assert_eq!(service.purge(|lookup| matches!(lookup, Lookup::Greet(_))).await, 1);
    drop(service);
    // While no gateway runs.
    assert_eq!(read_disk_cache(&folder.file()).unwrap().len(), samples().len() - 1);
    assert_eq!(purge_disk_cache(&folder.file(), |lookup| *lookup == samples()[0].0).unwrap(), 1);
    assert_eq!(read_disk_cache(&folder.file()).unwrap().len(), samples().len() - 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_a_warning() {
    let folder = Folder::new("use");
    let (service, _) = begin(with(&folder.file()));
    assert!(matches!(read_disk_cache(&folder.file()).unwrap_err(), DiskCacheError::InUse { .. }));
    let (other, notices) = begin(with(&folder.file()));
    assert!(notices.concat().contains("in use by a running gateway"), "{notices:?}");
    let (known, result, ttl) = samples().remove(0);
    other.insert(known.clone(), result.clone(), ttl);
    assert_eq!(other.lookup(&known).await, result, "in memory");
    drop((service, other));

    let missing = folder.0.join("no/folder/facts.redb");
    let (_, notices) = begin(with(&missing));
    assert!(notices.concat().starts_with("answers are cached in memory only: cannot open "));
    assert!(matches!(read_disk_cache(&missing).unwrap_err(), DiskCacheError::Open { .. }));
    assert!(!missing.exists());
}

/// Whichever bytes change: the gateway starts, with a warning if the file could not be used.
#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let folder = Folder::new("damaged");
    let (service, _) = begin(with(&folder.file()));
    for (lookup, result, ttl) in samples() {
        service.insert(lookup, result, ttl);
    }
    service.flush();
    drop(service);
    let whole = fs::read(folder.file()).unwrap();
    let aside = || -> BTreeSet<PathBuf> {
        let files = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_string_lossy().contains("facts.redb.damaged-")).collect()
    };
    let mut damages: Vec<Vec<u8>> = vec![
        b"this is no database".to_vec(),
        vec![0xff; 100_000],
        whole[..whole.len() / 2].to_vec(),
        whole[..100].to_vec(),
    ];
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let mut broken = whole.clone();
        broken[at..].iter_mut().take(4096).for_each(|octet| *octet ^= 0x5a);
        damages.push(broken);
    }
    let mut set_aside = 0;
    for damage in damages {
        fs::write(folder.file(), &damage).unwrap();
        let before = aside();
        let (service, notices) = begin(with(&folder.file()));
        let (known, result, ttl) = samples().remove(0);
        service.insert(known.clone(), result.clone(), ttl);
        assert_eq!(service.lookup(&known).await, result);
        service.flush();
        drop(service);
        let new: Vec<_> = aside().difference(&before).cloned().collect();
        if notices.is_empty() {
            assert!(new.is_empty());
        } else {
            set_aside += 1;
            assert!(notices[0].contains("was damaged") && new.len() == 1, "{notices:?} {new:?}");
            assert_eq!(fs::read(&new[0]).unwrap(), damage, "as it was");
        }
        assert!(
            read_disk_cache(&folder.file()).unwrap().iter().any(|(lookup, _)| *lookup == known)
        );
    }
    assert!(set_aside >= 4, "{set_aside}");
}

/// A row that changed in a file that is otherwise sound.
#[tokio::test]
async fn a_damaged_row_is_dropped_and_counted() {
    #[derive(Default)]
    struct Damage(AtomicUsize);

    impl LookupObserver for Damage {
        fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
        fn on_refresh(&self, _: LookupKind) {}
        fn on_shared_hit(&self, _: LookupKind) {}
        fn on_store_state(&self, _: bool) {}
        fn on_cache_size(&self, _: u64, _: u64) {}
        fn on_in_flight(&self, _: usize) {}
        fn on_damaged_rows(&self, count: usize) {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    let folder = Folder::new("rows");
    let (service, _) = begin(with(&folder.file()));
    for (lookup, result, ttl) in samples() {
        service.insert(lookup, result, ttl);
    }
    drop(service);
    let (known, result, _) = samples().remove(0);
    {
        use redb::ReadableTable as _;

        // As a failing disk or another program may: "mx.a.example" becomes "my.a.example", which is valid JSON.
        let database = redb::Database::open(folder.file()).unwrap();
        let writing = database.begin_write().unwrap();
        {
            let table = redb::TableDefinition::<&str, &[u8]>::new("facts-2");
            let mut table = writing.open_table(table).unwrap();
            let key = serde_json::to_string(&known).unwrap();
            let mut value = table.get(key.as_str()).unwrap().unwrap().value().to_vec();
            let at = value.windows(4).position(|some| some == b"mx.a").unwrap();
            value[at + 1] = b'y';
            table.insert(key.as_str(), value.as_slice()).unwrap();
        }
        writing.commit().unwrap();
    }
    assert!(read_disk_cache(&folder.file()).unwrap().iter().all(|(lookup, _)| *lookup != known));
    for (count, lines) in [(1, 1), (0, 0)] {
        let damage = Arc::<Damage>::default();
        let observer = Arc::clone(&damage) as Arc<dyn LookupObserver>;
        let (service, notices) = LookupService::start(with(&folder.file()), observer).unwrap();
        assert_eq!(notices.len(), lines, "{notices:?}");
        if let [notice] = notices.as_slice() {
            assert!(notice.starts_with("1 cached answer in "), "{notice}");
            assert!(notice.contains("did not match the checksum"), "{notice}");
        }
        assert_eq!(damage.0.load(Ordering::Relaxed), count, "dropped for good");
        let others = samples().len() - 1;
        assert_eq!(service.entries(|_| true).len(), others);
        assert!(service.entries(|lookup| *lookup == known).is_empty());
        assert_ne!(service.lookup(&known).await.answer, result.answer);
        service.flush();
    }
}

#[tokio::test]
async fn states_of_other_parts_survive_and_a_damaged_one_is_dropped() {
    let folder = Folder::new("states");
    let (service, _) = begin(with(&folder.file()));
    assert!(service.keeps_states());
    assert_eq!(service.take_saved_state("canary"), None);
    service.save_state("canary", b"first".to_vec());
    service.save_state("canary", b"second".to_vec());
    service.save_state("other", b"third".to_vec());
    // Purging answers concerns no state.
    assert_eq!(service.purge(|_| true).await, 0);
    service.flush();
    drop(service);
    let (service, notices) = begin(with(&folder.file()));
    assert_eq!(notices, [""; 0]);
    assert_eq!(service.take_saved_state("canary").as_deref(), Some(&b"second"[..]));
    assert_eq!(service.take_saved_state("canary"), None, "it is the caller's now");
    drop(service);
    {
        let database = redb::Database::open(folder.file()).unwrap();
        let writing = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&str, &[u8]>::new("states-1");
        writing.open_table(table).unwrap().insert("canary", &b"\0\0\0\0\0\0\0\0x"[..]).unwrap();
        writing.commit().unwrap();
    }
    let (service, notices) = begin(with(&folder.file()));
    assert_eq!(service.take_saved_state("canary"), None);
    assert_eq!(service.take_saved_state("other").as_deref(), Some(&b"third"[..]));
    assert!(notices[0].starts_with("the state canary in "), "{notices:?}");
    assert!(notices[0].contains("did not match the checksum"), "{notices:?}");
    service.flush();
    drop(service);
    assert_eq!(begin(with(&folder.file())).1, [""; 0], "dropped for good");

    let memory_only = LookupSettings { cache_file: None, ..with(&folder.file()) };
    let (service, _) = begin(memory_only);
    service.save_state("canary", b"lost".to_vec());
    assert!(!service.keeps_states() && service.take_saved_state("canary").is_none());
}

#[tokio::test]
async fn the_file_is_bounded() {
    let folder = Folder::new("bounded");
    let name = |n: u64| lookup(&format!("MX n{n}.example"));
    let (service, _) = begin(with(&folder.file()));
    for n in 0..200 {
        let ttl = Duration::from_secs(1000 + n);
        service.insert(name(n), lookup_result(Answer::NxDomain, Source::Dns), ttl);
    }
    drop(service);
    let cache_limits = CacheLimits { entries: 50, bytes: 64 << 20 };
    drop(begin(LookupSettings { cache_limits, ..with(&folder.file()) }));
    // Pruned at the start; the last to expire remain.
    let (service, _) = begin(LookupSettings { cache_limits, ..with(&folder.file()) });
    service.insert(
        name(0),
        lookup_result(Answer::NxDomain, Source::Dns),
        Duration::from_secs(5000),
    );
    drop(service);
    let left: Vec<_> =
        read_disk_cache(&folder.file()).unwrap().into_iter().map(|(lookup, _)| lookup).collect();
    assert!(left.len() <= 51, "{}", left.len());
    assert!(left.contains(&name(199)) && left.contains(&name(0)) && !left.contains(&name(10)));
}

const CHILD: &str = "GATEPOST_TEST_STORE";

/// The process that `answers_survive_kill_9` kills.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Some(file) = std::env::var_os(CHILD) else { return };
    let (service, notices) = begin(with(Path::new(&file)));
    for n in 0_u64.. {
        let lookup = lookup(&format!("MX n{n}.example"));
        let ttl = Duration::from_secs(3600);
        service.insert(lookup, lookup_result(Answer::NxDomain, Source::Dns), ttl);
        if n % 500 == 499 {
            service.flush();
            println!("\nnotices={} written={n}", notices.len());
        }
    }
}

/// All flushed answers are there after each of several kills.
#[test]
fn answers_survive_kill_9() {
    let folder = Folder::new("killed");
    let mut best = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "lookup::tests::disk_cache::child_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, folder.file())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = lines
            .map(|line| line.unwrap())
            .filter_map(|line| {
                Some(line.strip_prefix("notices=0 written=")?.parse::<u64>().unwrap())
            })
            .nth(2 + round)
            .expect("the child ended by itself, or found the file damaged");
        child.kill().unwrap();
        child.wait().unwrap();
        best = best.max(written);
        let lookups: BTreeSet<_> = read_disk_cache(&folder.file())
            .unwrap()
            .into_iter()
            .map(|(lookup, _)| lookup)
            .collect();
        for n in 0..=best {
            assert!(lookups.contains(&lookup(&format!("MX n{n}.example"))), "{n} of {best}");
        }
    }
}
