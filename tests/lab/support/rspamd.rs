//! An rspamd of the test's own, as a milter: a filter of inbound mail or a signer of outbound mail, without DNS or Redis.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{Host, Lab, Process, require_program};

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

/// What an rspamd signs, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigningKey<'a> {
    /// Messages whose author has this domain are signed, others are not.
    pub(crate) domain: &'a str,
    pub(crate) selector: &'a str,
    pub(crate) file: &'a Path,
}

/// Starts a filter; it accepts connections when this returns.
pub(crate) fn start_filter(lab: &Lab, host: &Host, name: &str, filter: Filter) -> Process {
    let score = match filter {
        Filter::Healthy => 0.0,
        Filter::MarksIpv6 => 8.0,
    };
    let rules = format!(
        "rspamd_config.IPV6_CLIENT = {{
  callback = function(task)
    local ip = task:get_from_ip()
    return ip ~= nil and ip:is_valid() and ip:get_version() == 6
  end,
  score = {score:.1},
}}
"
    );
    start(lab, host, name, "options { filters = \"\"; }\n", &rules)
}

/// Starts a signer of messages from its own host, by the module `dkim_signing`; it accepts connections when this returns.
pub(crate) fn start_signer(lab: &Lab, host: &Host, name: &str, key: SigningKey<'_>) -> Process {
    let SigningKey { domain, selector, file } = key;
    let modules = format!(
        r#"options {{ filters = "dkim"; }}
modules {{ path = "/usr/share/rspamd/plugins/dkim_signing.lua"; }}
dkim {{ }}
dkim_signing {{
  sign_local = true; use_esld = false; try_fallback = false;
  domain {{ "{domain}" {{ selector = "{selector}"; path = "{}"; }} }}
}}
"#,
        file.display()
    );
    start(lab, host, name, &modules, "")
}

fn start(lab: &Lab, host: &Host, name: &str, modules: &str, rules: &str) -> Process {
    require_program("rspamd", "rspamd");
    let folder = lab.folder(name);
    let at = folder.display();
    let config = folder.join("rspamd.conf");
    // The list of all top-level domains takes it seconds to compile.
    fs::write(folder.join("tld"), "example\norg\nnet\n").unwrap();
    fs::write(
        &config,
        format!(
            r#"options {{
  pidfile = "{at}/pid"; tempdir = "{at}"; hs_cache_dir = "{at}"; disable_hyperscan = true; heartbeats_loss_max = 0;
  url_tld = "{at}/tld";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.05s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; color = false; }}
actions {{ reject = 100; add_header = 6; }}
lua = "{at}/rules.lua";
worker "rspamd_proxy" {{
  bind_socket = "{MILTER}"; milter = true; timeout = 60s; count = 1;
  upstream "local" {{ self_scan = true; default = true; }}
}}
{modules}"#
        ),
    )
    .unwrap();
    fs::write(folder.join("rules.lua"), rules).unwrap();
    // It runs in the foreground and, in a namespace of a test, as root.
    let process = host.spawn(["rspamd", "-f", "-i", "-c", config.to_str().unwrap()]);
    host.wait_for_listener(MILTER.parse::<SocketAddr>().unwrap());
    process
}
