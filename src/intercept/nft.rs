//! Runs `nft`: checks, applies and lists the table of the interception, and interprets errors.

use std::fs::read_to_string;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use nftables::schema::Nftables;
use serde_json::Value;

use super::dynamic_sets;
use super::error::InterceptError;
use super::listing::TableListing;
use super::ruleset::{self, Ruleset};
use super::settings::TABLE;
use crate::addr::Family;

/// PATH of services and unprivileged users often lacks /usr/sbin.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

/// Tables of iptables-legacy, which nft does not list: a file with their names, absent if the kernel has none and readable for
/// root only, and the program.
pub(super) const LEGACY: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];

/// Replaces our table in one transaction.
pub(super) async fn replace(ruleset: &Ruleset) -> Result<(), InterceptError> {
    let what = "install the table `inet gatepost`";
    match apply(&[], ruleset.replace()).await? {
        Ok(_) => Ok(()),
        Err(stderr) => Err(refused(what, stderr, &missing_modules().await?)),
    }
}

/// Opens or closes the door of a family, in one transaction.
pub(super) async fn set_door(ruleset: &Ruleset, family: Family) -> Result<(), InterceptError> {
    let closes = ruleset.closed[family as usize];
    let what = if closes { "close the door" } else { "open the door" };
    match apply(&[], ruleset.set_door(family)).await? {
        Ok(_) => Ok(()),
        Err(stderr) => Err(refused(what, stderr, &[])),
    }
}

/// Whether a chain of another table translates source addresses.
pub(super) async fn translates() -> Result<bool, InterceptError> {
    let has_nat = |file: &str| {
        read_to_string(file).is_ok_and(|names| names.lines().any(|name| name == "nat"))
    };
    if LEGACY.into_iter().any(|(file, _)| has_nat(file)) {
        return Ok(true);
    }
    let stdout = run(&["-j", "list", "chains"], None).await?;
    let stdout = stdout.map_err(|stderr| refused("list the chains", stderr, &[]))?;
    let value: Value = serde_json::from_str(&stdout).map_err(InterceptError::NftOutput)?;
    let mut chains =
        value["nftables"].as_array().into_iter().flatten().map(|object| &object["chain"]);
    Ok(chains.any(|chain| {
        chain["type"] == "nat" && chain["hook"] == "postrouting" && chain["table"] != TABLE
    }))
}

/// Removes our table. Returns whether there was one.
pub(super) async fn delete() -> Result<bool, InterceptError> {
    deleted(apply(&[], ruleset::delete()).await?)
}

/// As [`delete`], on this thread: a thread that starts before the privileges are dropped would keep them.
pub(super) fn delete_blocking() -> Result<bool, InterceptError> {
    let json = serde_json::to_string(&ruleset::delete()).map_err(InterceptError::NftOutput)?;
    deleted(run_blocking(&["-j", "-f", "-"], Some(&json))?)
}

fn deleted(result: Result<String, String>) -> Result<bool, InterceptError> {
    match result {
        Ok(_) => Ok(true),
        Err(stderr) if is_absent(&stderr) => Ok(false),
        Err(stderr) => Err(refused("remove the table `inet gatepost`", stderr, &[])),
    }
}

/// Our table; `None` if there is none.
pub(super) async fn list() -> Result<Option<TableListing>, InterceptError> {
    let what = "list the table `inet gatepost`";
    match run(&["-j", "-t", "list", "table", "inet", TABLE], None).await? {
        Ok(stdout) => TableListing::parse(&stdout).map(Some).map_err(InterceptError::NftOutput),
        Err(stderr) if is_absent(&stderr) => Ok(None),
        Err(stderr) => Err(refused(what, stderr, &[])),
    }
}

/// How many sources of SYNs were seen within `age`.
pub(super) async fn sources(family: Family, age: Duration) -> Result<usize, InterceptError> {
    let args = ["-j", "list", "set", "inet", TABLE, dynamic_sets::sources(family)];
    match run(&args, None).await? {
        Ok(stdout) => {
            let value: Value = serde_json::from_str(&stdout).map_err(InterceptError::NftOutput)?;
            Ok(recent_elements(&value, age))
        }
        Err(stderr) if is_absent(&stderr) => Ok(0),
        Err(stderr) => Err(refused("list the sources of mail", stderr, &[])),
    }
}

fn recent_elements(listing: &Value, age: Duration) -> usize {
    let sets = listing["nftables"].as_array().into_iter().flatten();
    let elements = sets.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    let seconds = elements.filter_map(|element| {
        let left = element["elem"]["expires"].as_u64()?;
        Some(u64::from(dynamic_sets::SOURCES_KEPT).saturating_sub(left))
    });
    seconds.filter(|&seen| seen < age.as_secs()).count()
}

/// The tables of everyone, as `nft -j list ruleset` prints them.
pub(super) async fn list_all() -> Result<Value, InterceptError> {
    let stdout = run(&["-j", "list", "ruleset"], None).await?;
    let stdout = stdout.map_err(|stderr| refused("list the ruleset", stderr, &[]))?;
    serde_json::from_str(&stdout).map_err(InterceptError::NftOutput)
}

/// The same as text, with handles.
pub(super) async fn list_all_as_text() -> Result<String, InterceptError> {
    let stdout = run(&["-a", "list", "ruleset"], None).await?;
    stdout.map_err(|stderr| refused("list the ruleset", stderr, &[]))
}

/// Applies commands of nft's own language.
pub(super) async fn apply_text(script: String) -> Result<(), InterceptError> {
    match run(&["-f", "-"], Some(script)).await? {
        Ok(_) => Ok(()),
        Err(stderr) => Err(refused("apply rules", stderr, &[])),
    }
}

async fn missing_modules() -> Result<Vec<&'static str>, InterceptError> {
    let mut missing = Vec::new();
    for (module, probe) in ruleset::probes() {
        if apply(&["-c"], probe).await?.is_err_and(|stderr| is_absent(&stderr)) {
            missing.push(module);
        }
    }
    Ok(missing)
}

pub(super) fn refused(
    what: &'static str,
    stderr: String,
    missing: &[&'static str],
) -> InterceptError {
    if stderr.contains("Operation not permitted") {
        InterceptError::NotPermitted { what: "access to nftables" }
    } else if stderr.contains("Unable to initialize Netlink socket") {
        InterceptError::KernelLacks { modules: vec!["nf_tables"] }
    } else if !missing.is_empty() {
        InterceptError::KernelLacks { modules: missing.to_vec() }
    } else {
        InterceptError::NftRefused { what, stderr: first_line(&stderr).to_owned() }
    }
}

/// ENOENT: no such table, or no such expression in this kernel.
pub(super) fn is_absent(stderr: &str) -> bool {
    stderr.contains("No such file or directory")
}

fn first_line(stderr: &str) -> &str {
    let line = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim().trim_start_matches("internal:0:0-0: ")
}

pub(super) async fn apply(
    args: &'static [&'static str],
    batch: Nftables<'static>,
) -> Result<Result<String, String>, InterceptError> {
    let json = serde_json::to_string(&batch).map_err(InterceptError::NftOutput)?;
    let mut args = args.to_vec();
    args.extend(["-j", "-f", "-"]);
    run(&args, Some(json)).await
}

/// Returns standard output, or standard error if `nft` failed. The runner of crate `nftables` does not capture standard error
/// when it applies a batch, and only that has the reason.
pub(super) async fn run(
    args: &[&'static str],
    input: Option<String>,
) -> Result<Result<String, String>, InterceptError> {
    let args = args.to_vec();
    tokio::task::spawn_blocking(move || run_blocking(&args, input.as_deref()))
        .await
        .map_err(|panicked| InterceptError::NftRun(io::Error::other(panicked)))?
}

fn run_blocking(
    args: &[&str],
    input: Option<&str>,
) -> Result<Result<String, String>, InterceptError> {
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(args)
            // The messages are matched untranslated.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(InterceptError::NftRun(error)),
        };
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // If nft exits before it has read everything, standard error has the reason.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(InterceptError::NftRun)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        return Ok(if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        });
    }
    Err(InterceptError::NftMissing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_sources_count() {
        let element =
            |expires: u32| serde_json::json!({ "elem": { "val": "::", "expires": expires } });
        let set =
            serde_json::json!({ "set": { "elem": [element(3600), element(3580), element(1)] } });
        let listing = serde_json::json!({ "nftables": [{ "metainfo": {} }, set] });
        let count = |seconds| recent_elements(&listing, Duration::from_secs(seconds));
        assert_eq!((count(10), count(30), count(7200)), (1, 2, 3));
    }

    #[test]
    fn errors_name_the_remedy() {
        let message = |stderr: &str, missing: &[&'static str]| {
            refused("install the table `inet gatepost`", stderr.to_owned(), missing).to_string()
        };
        let denied =
            message("netlink: Error: cache initialization failed: Operation not permitted", &[]);
        assert!(denied.contains("CAP_NET_ADMIN"), "{denied}");

        let absent = "internal:0:0-0: Error: Could not process rule: No such file or directory\n";
        assert_eq!(
            message(absent, &["nft_tproxy", "nft_socket"]),
            "this kernel lacks nft_tproxy, nft_socket: load it (modprobe nft_tproxy nft_socket), or \
             use a kernel built with it"
        );
        assert_eq!(
            message(absent, &[]),
            "nft refused to install the table `inet gatepost`: Error: Could not process rule: No such \
             file or directory"
        );
    }
}
