//! The files with which Prometheus and Grafana start. No container is started here.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::board::{FOLDER, boards};
use super::rules::yaml;

fn file(name: &str) -> Value {
    yaml(&Path::new(FOLDER).join(name))
}

/// Each `SOURCE:TARGET[:ro]` of a service, without named volumes.
fn mounts(service: &Value) -> Vec<(PathBuf, String)> {
    let volumes = service["volumes"].as_array().unwrap();
    let volumes = volumes.iter().map(|volume| volume.as_str().unwrap());
    volumes
        .filter(|volume| volume.starts_with('.'))
        .map(|volume| {
            let (path, rest) = volume.split_once(':').unwrap();
            let target = rest.strip_suffix(":ro");
            let target = target.unwrap_or_else(|| panic!("{volume} is writable"));
            (Path::new(FOLDER).join(path), target.to_owned())
        })
        .collect()
}

/// The path on this host of a path in a container.
fn on_this_host(service: &Value, inside: &str) -> PathBuf {
    let mounts = mounts(service);
    let mount = mounts.iter().find_map(|(path, target)| {
        Some(path.join(inside.strip_prefix(target.as_str())?.trim_start_matches('/')))
    });
    mount.unwrap_or_else(|| panic!("{inside} is not mounted"))
}

#[test]
fn containers_find_their_files_and_listen_on_loopback() {
    let compose = file("compose.yml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["grafana", "prometheus"]);
    for (name, service) in services {
        let (_, tag) = service["image"].as_str().unwrap().split_once(':').unwrap();
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name}: {tag} is not a version");
        assert!(service["ports"].is_null(), "{name}");
        assert_eq!(service["network_mode"], "host", "{name}");
        for (path, _) in mounts(service) {
            assert!(path.exists(), "{name}: {}", path.display());
        }
        let named = service["volumes"].as_array().unwrap().iter().filter_map(Value::as_str);
        for volume in named.filter(|volume| !volume.starts_with('.')) {
            let (volume, _) = volume.split_once(':').unwrap();
            assert!(compose["volumes"].as_object().unwrap().contains_key(volume), "{volume}");
        }
    }
    let prometheus = &services["prometheus"];
    let option = |name: &str| {
        let options = prometheus["command"].as_array().unwrap().iter().filter_map(Value::as_str);
        let mut values = options.filter_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap().to_owned()
    };
    let at = option("--web.listen-address");
    assert!(on_this_host(prometheus, &option("--config.file")).exists());
    let grafana = &services["grafana"];
    let setting = |name: &str| grafana["environment"][name].as_str().unwrap();
    assert!(at.starts_with("127.0.0.1:") && setting("GF_SERVER_HTTP_ADDR") == "127.0.0.1");
    assert!(on_this_host(grafana, setting("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")).exists());

    let datasources = file("grafana/provisioning/datasources/gatepost.yml");
    let datasource = &datasources["datasources"][0];
    assert_eq!(datasource["url"], format!("http://{at}").as_str());
    let scrape = &file("prometheus/prometheus.yml")["global"]["scrape_interval"];
    assert_eq!(&datasource["jsonData"]["timeInterval"], scrape);

    let providers = file("grafana/provisioning/dashboards/gatepost.yml");
    let path = providers["providers"][0]["options"]["path"].as_str().unwrap();
    for board in boards() {
        let file = on_this_host(grafana, path).join(format!("{}.json", board.name));
        assert!(file.exists(), "{}", file.display());
    }
    // Grafana's default path.
    let provisioning = on_this_host(grafana, "/etc/grafana/provisioning");
    for kind in ["datasources", "dashboards"] {
        assert!(provisioning.join(kind).join("gatepost.yml").exists(), "{kind}");
    }
}
