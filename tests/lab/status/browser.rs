//! A headless Chromium on a host of the lab, driven by the DevTools protocol over a pair of pipes: messages are JSON, each
//! ended by a NUL (`--remote-debugging-pipe`).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Host, Lab, PATIENCE, Process, until};

pub(crate) struct Browser {
    _process: Process,
    to: File,
    from: Receiver<Value>,
    /// Id of the last command.
    id: u64,
    /// The browser's events so far.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it with a new profile in the lab's folder.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, host: &Host) -> Self {
        let folder = lab.folder("chromium");
        let pipes = ["commands", "answers"].map(|name| folder.join(name));
        for pipe in &pipes {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let [commands, answers] = &pipes;
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
                      --no-first-run --disable-background-networking --disable-component-update \
                      --hide-scrollbars --user-data-dir=\"$2\" --remote-debugging-pipe 3<\"$0\" 4>\"$1\"";
        let profile = folder.join("profile");
        let paths = [commands, answers, &profile].map(|path| path.to_str().unwrap());
        let process = host.spawn([&["sh", "-c", script][..], &paths].concat());
        // In the shell's order: opening a pipe blocks until the other end is open.
        let to = File::options().write(true).open(commands).unwrap();
        let from = BufReader::new(File::open(answers).unwrap());
        let (events, inbox) = channel();
        thread::spawn(move || {
            for message in from.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap();
                if events.send(message).is_err() {
                    return;
                }
            }
        });
        Self { _process: process, to, from: inbox, id: 0, events: Vec::new() }
    }

    /// An empty page that reports its errors.
    #[track_caller]
    pub(crate) fn page(&mut self) -> Page<'_> {
        let target = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.ask(None, "Target.attachToTarget", attach);
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let mut page = Page { browser: self, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.ask(&format!("{domain}.enable"), json!({}));
        }
        page
    }

    #[track_caller]
    fn ask(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.id += 1;
        let mut command = json!({ "id": self.id, "method": method, "params": parameters });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.from.recv_timeout(PATIENCE);
            let mut message = message.unwrap_or_else(|error| panic!("{method}: chromium: {error}"));
            if message["id"] == self.id {
                assert!(message["error"].is_null(), "{command}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }
}

pub(crate) struct Page<'browser> {
    browser: &'browser mut Browser,
    session: String,
}

impl Page<'_> {
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.browser.ask(Some(&self.session), method, parameters)
    }

    /// Loads an address, and waits until it is complete.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
        until(format_args!("{url} to load"), || {
            let state = self.value("location.protocol + document.readyState");
            (state == "http:complete").then_some(())
        });
    }

    /// The value of a JavaScript expression.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let mut answer = self.ask("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression}: {value}")).to_owned()
    }

    /// Sets the width of the screen and the colour scheme, `light` or `dark`.
    pub(crate) fn screen(&mut self, width: u32, scheme: &str) {
        let screen = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.ask("Emulation.setDeviceMetricsOverride", screen);
        let scheme = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [scheme] }));
    }

    /// Writes a screenshot of the whole page.
    pub(crate) fn shoot(&mut self, file: &Path) {
        let options = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.ask("Page.captureScreenshot", options);
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(File::create(file).unwrap())
            .spawn()
            .unwrap();
        let base64 = picture["data"].as_str().unwrap();
        decode.stdin.take().unwrap().write_all(base64.as_bytes()).unwrap();
        assert!(decode.wait().unwrap().success());
        assert!(fs::read(file).unwrap().starts_with(b"\x89PNG"), "{}", file.display());
    }

    /// Errors and warnings so far: of scripts, of the content security policy, of the network.
    pub(crate) fn complaints(&mut self) -> Vec<Value> {
        // A response arrives after the events before it.
        self.value("0");
        let wrong = |event: &&Value| match event["method"].as_str() {
            Some("Log.entryAdded") => {
                matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            Some(
                "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Network.loadingFailed",
            ) => true,
            _ => false,
        };
        self.browser.events.iter().filter(wrong).cloned().collect()
    }

    /// The URLs requested so far.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.value("0");
        let requests = self
            .browser
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }
}
