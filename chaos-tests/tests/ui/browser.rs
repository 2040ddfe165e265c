//! A headless Chromium that is spoken to over a pipe (`--remote-debugging-pipe`): no port, no driver, no protocol crate.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use matriarch::clock::boot_ns;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A command of the browser is answered within this time, or the browser is broken.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a page is looked at.
const POLL: Duration = Duration::from_millis(100);
/// What distributions call the program.
const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "chromium-headless-shell",
];
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
     --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe";

/// A browser with one page. Dropping it ends it.
pub struct Browser {
    child: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    asked: u64,
    session: String,
    /// What went wrong in the page: exceptions, refused resources, messages of level error.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Where the program is, if it is installed.
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let place = |name: &&str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
        PROGRAMS.iter().find_map(place)
    }

    /// Starts it and opens `url`.
    pub fn open(program: &Path, url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory for the profile");
        // It reads commands from descriptor 3 and answers on 4.
        let line = format!("exec \"$0\" {FLAGS} --user-data-dir=\"$1\" 3<&0 4>&1 1>/dev/null 2>/dev/null");
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .args([program, profile.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let pipe = child.stdin.take().expect("its input");
        let mut answers = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|count| count > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).expect("the browser speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            pipe,
            messages,
            asked: 0,
            session: String::new(),
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser.call("Runtime.enable", json!({}));
        browser.call("Log.enable", json!({}));
        browser.call("Page.enable", json!({}));
        browser.call("Page.navigate", json!({"url": url}));
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut command = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.pipe.write_all(&bytes).expect("the browser listens");
        loop {
            let message = self
                .messages
                .recv_timeout(ANSWER)
                .unwrap_or_else(|_| panic!("the browser did not answer {method}"));
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        if bad {
            self.complaints.push(event["params"].to_string());
        }
    }

    /// The value of a JavaScript expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let ask = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", ask)["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, what: &str, deadline_s: u64, expression: &str) {
        let begun = boot_ns();
        while self.value(expression) != true {
            assert!(
                boot_ns() - begun < deadline_s * 1_000_000_000,
                "{what} did not come within {deadline_s} s; the page says:\n{}\n{:?}",
                self.value("document.body.innerText").as_str().unwrap_or_default(),
                self.complaints
            );
            std::thread::sleep(POLL);
        }
    }

    /// The page as a person would see it, on a screen of that width, light or dark.
    pub fn look(&mut self, width: u32, dark: bool) -> Vec<u8> {
        let metrics = json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        BASE64_STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
