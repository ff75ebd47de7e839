//! Facts about this host: its interfaces, and its Postfix by postconf(1).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use pnet::datalink;
use rtnetlink::packet_route::link::LinkAttribute;

use crate::readiness::{HostInterface, PARAMETERS, Postfix, RESTRICTIONS};

/// The interfaces that are up.
pub(super) async fn interfaces() -> Vec<HostInterface> {
    // Optional: without them the report has the path MTU only.
    let mtus = mtus().await.unwrap_or_default();
    let net = |net: &pnet::ipnetwork::IpNetwork| IpNet::new(net.ip(), net.prefix()).ok();
    let up = datalink::interfaces().into_iter().filter(datalink::NetworkInterface::is_up);
    up.map(|one| HostInterface {
        addresses: one.ips.iter().filter_map(net).collect(),
        mtu: mtus.get(&one.index).copied(),
        name: one.name,
    })
    .collect()
}

/// MTUs by interface index.
async fn mtus() -> anyhow::Result<BTreeMap<u32, u32>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut links = handle.link().get().execute();
    let mut mtus = BTreeMap::new();
    while let Some(link) = links.try_next().await? {
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        mtus.extend(mtu.map(|mtu| (link.header.index, mtu)));
    }
    connection.abort();
    Ok(mtus)
}

pub(in crate::app) fn postfix(directory: Option<&Path>) -> anyhow::Result<Postfix> {
    let expanded = ["-x"].into_iter().chain(PARAMETERS).chain(RESTRICTIONS);
    let parameters = postconf(directory, expanded)?;
    let lists = postconf(directory, RESTRICTIONS)?;
    let services = postconf(directory, ["-M"])?;
    let own = postconf(directory, ["-P"])?;
    let directory = directory.map(|directory| directory.display().to_string());
    let postfix = Postfix::new(directory, &parameters, &services, &own).with_unexpanded(&lists);
    let program = std::env::current_exe().ok().map(|path| path.display().to_string());
    Ok(match program {
        Some(program) => postfix.with_program(program),
        None => postfix,
    })
}

/// The output of postconf. Users often have no /usr/sbin in their PATH.
fn postconf<'a>(
    directory: Option<&Path>,
    arguments: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<String> {
    let arguments: Vec<&str> = arguments.into_iter().collect();
    for program in ["postconf", "/usr/sbin/postconf"] {
        let mut command = Command::new(program);
        if let Some(directory) = directory {
            command.arg("-c").arg(directory);
        }
        let output = match command.args(&arguments).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            ended => ended.with_context(|| format!("cannot run {program}"))?,
        };
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "postconf cannot read Postfix' configuration: {}",
                crate::report::printable(error.trim())
            );
        }
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("--postfix needs postconf(1), which is not installed; run this on the Postfix host")
}
