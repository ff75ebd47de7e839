//! An rspamd of the test's own, as a milter: without rules of its own, DNS or Redis.

use std::fs;
use std::net::SocketAddr;

use crate::support::{Host, Lab, Process, require_program};

/// Where it accepts the milter protocol.
pub(crate) const MILTER: &str = "127.0.0.1:11332";

/// What it thinks of clients over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// The same as of others.
    Healthy,
    /// It adds a score that makes every message spam.
    MarksIpv6,
}

/// Starts one; it accepts connections when this returns.
pub(crate) fn start(lab: &Lab, host: &Host, name: &str, filter: Filter) -> Process {
    require_program("rspamd", "rspamd");
    let folder = lab.folder(name);
    let at = folder.display();
    let config = folder.join("rspamd.conf");
    // The list of all top-level domains takes it seconds to compile.
    fs::write(folder.join("tld"), "org\nnet\n").unwrap();
    let score = match filter {
        Filter::Healthy => 0.0,
        Filter::MarksIpv6 => 8.0,
    };
    fs::write(
        &config,
        format!(
            r#"options {{
  pidfile = "{at}/pid"; tempdir = "{at}"; hs_cache_dir = "{at}"; filters = ""; disable_hyperscan = true; heartbeats_loss_max = 0;
  url_tld = "{at}/tld";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.05s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{at}/log"; level = "info"; }}
actions {{ reject = 100; add_header = 6; }}
lua = "{at}/rules.lua";
worker "rspamd_proxy" {{
  bind_socket = "{MILTER}"; milter = true; timeout = 60s; count = 1;
  upstream "local" {{ self_scan = true; default = true; }}
}}
"#
        ),
    )
    .unwrap();
    fs::write(
        folder.join("rules.lua"),
        format!(
            "rspamd_config.IPV6_CLIENT = {{
  callback = function(task)
    local ip = task:get_from_ip()
    return ip ~= nil and ip:is_valid() and ip:get_version() == 6
  end,
  score = {score:.1},
}}
"
        ),
    )
    .unwrap();
    // It runs in the foreground and, in a namespace of a test, as root.
    let process = host.spawn(["rspamd", "-f", "-i", "-c", config.to_str().unwrap()]);
    host.wait_for_listener(MILTER.parse::<SocketAddr>().unwrap());
    process
}
