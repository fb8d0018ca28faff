//! The command line as scripts use it.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::{Value, json};

fn kps(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kps"));
    command.args(args).env_remove("KPS_URL").env_remove("KPS_TOKEN");
    command
}

/// A `kps serve` that ends with the test.
struct Serve {
    child: Child,
    out: BufReader<ChildStdout>,
    url: String,
}

impl Serve {
    fn start(args: &[&str]) -> Serve {
        let mut command = kps(&["serve", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let said: Value = serde_json::from_str(&line(&mut out)).unwrap();
        assert!(said["listening"].as_str().unwrap().starts_with("127.0.0.1:"));
        Serve { child, out, url: said["url"].as_str().unwrap().to_owned() }
    }

    fn run(&self, args: &[&str]) -> Output {
        kps(args).env("KPS_URL", &self.url).output().unwrap()
    }

    /// A command that goes on, and its standard output and error.
    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = kps(args);
        command.env("KPS_URL", &self.url).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    /// A `kps sub` that is subscribed.
    fn subscribe(&self, args: &[&str]) -> Child {
        let mut child = self.spawn(&[&["sub"], args].concat());
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        while !line(&mut errors).contains("subscribed") {}
        child.stderr = Some(errors.into_inner());
        child
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended as the test wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert!(from.read_line(&mut line).unwrap() > 0, "the output ended");
    line
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[cfg(unix)]
#[test]
fn what_pub_retains_sub_begins_with() {
    let folder = std::env::temp_dir().join(format!("kps-cli-retained-{}", std::process::id()));
    let mut serve = Serve::start(&["--data", folder.to_str().unwrap()]);
    assert!(serve.run(&["pub", "lamp.1", r#""on""#, "--retain"]).status.success());
    assert!(serve.run(&["pub", "lamp.2", "", "--text", "--retain"]).status.success());
    let found = serve.run(&["sub", "lamp.*", "--start", "last", "--count", "1", "--json"]);
    let message: Value = serde_json::from_str(text(&found.stdout)).unwrap();
    assert_eq!((&message["data"], &message["retained"]), (&json!("on"), &json!(true)));
    let pid = serve.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
    let serve = Serve::start(&["--data", folder.to_str().unwrap()]);
    let found = serve.run(&["sub", "lamp.*", "--start", "last", "--count", "1"]);
    assert_eq!(text(&found.stdout), "lamp.1 \"on\"\n");
    drop(serve);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_pub_publishes_sub_prints() {
    let serve = Serve::start(&[]);
    let plain = serve.subscribe(&["a.*", "--count", "3"]);
    let scripted = serve.subscribe(&["a.b", "--count", "2", "--json"]);
    assert!(serve.run(&["pub", "a.b", r#"{"x":1}"#, "--header", "k=v"]).status.success());
    let mut lines = serve.spawn(&["pub", "a.b"]);
    lines.stdin.take().unwrap().write_all(b"two words\n").unwrap();
    assert!(lines.wait().unwrap().success());
    assert!(serve.run(&["pub", "a.c", "7", "--text"]).status.success());
    let plain = plain.wait_with_output().unwrap();
    assert!(plain.status.success());
    assert_eq!(text(&plain.stdout), "a.b {\"x\":1}\na.b two words\na.c 7\n");
    let scripted = scripted.wait_with_output().unwrap();
    let objects: Vec<Value> =
        text(&scripted.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["data"], json!({ "x": 1 }));
    assert_eq!(objects[0]["headers"], json!({ "k": "v" }));
    assert_eq!(
        (&objects[1]["data"], &objects[1]["content_type"]),
        (&json!("two words"), &json!("text"))
    );
    assert_eq!((&objects[0]["seq"], &objects[1]["seq"]), (&json!(1), &json!(2)));
}

#[test]
fn acks_and_requests_print_who_answered() {
    let serve = Serve::start(&[]);
    let answerer = serve.subscribe(&["q", "--id", "answerer", "--count", "2"]);
    let acked = serve.run(&["pub", "q", "1", "--ack", "--json"]);
    assert!(acked.status.success());
    let row: Value = serde_json::from_str(text(&acked.stdout)).unwrap();
    assert_eq!((&row["client_id"], &row["status"]), (&json!("answerer"), &json!("acked")));
    let answer = serve.run(&["request", "q", "2"]);
    assert_eq!((answer.status.code(), text(&answer.stdout)), (Some(0), "null\n"));
    assert!(answerer.wait_with_output().unwrap().status.success());
    let nobody = serve.run(&["request", "nobody.there"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no_responders"));
}

#[test]
fn the_doctor_finds_a_healthy_server_healthy() {
    let serve = Serve::start(&["--token", "t"]);
    let findings = serve.run(&["doctor", &serve.url, "--token", "t", "--json"]);
    assert!(findings.status.success(), "{}", text(&findings.stdout));
    let steps: Vec<Value> =
        text(&findings.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["TCP", "HTTP", "handshake", "clock", "payload", "round trip"]);
    assert!(steps.iter().all(|step| step["verdict"] == "good"), "{steps:?}");
}

#[test]
fn the_doctor_says_what_is_broken() {
    let serve = Serve::start(&["--token", "t"]);
    let refused = serve.run(&["doctor", "--token", "wrong"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("✗ handshake: the token is not one of this server's"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = kps(&["doctor", &format!("ws://{free}")]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stdout).contains("✗ TCP"), "{}", text(&absent.stdout));
    let wrong = kps(&["doctor", "http://x"]).output().unwrap();
    assert!(text(&wrong.stdout).contains("✗ address"));
}

#[test]
fn the_bench_ends_with_its_figures() {
    let serve = Serve::start(&[]);
    let sizes = ["--messages", "2000", "--acks", "50", "--subscribers", "3"];
    let done = serve.run(&[&["bench", "--json"], &sizes[..]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let figures: Value = serde_json::from_str(text(&done.stdout)).unwrap();
    for name in [
        "messages_per_second",
        "ack_p50_us",
        "ack_p99_us",
        "acks_per_second",
        "deliveries_per_second",
    ] {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{figures}");
    }
}

#[cfg(unix)]
#[test]
fn serve_closes_in_order_when_it_is_told_to_end() {
    for signal in ["TERM", "INT"] {
        let mut serve = Serve::start(&[]);
        let mut listener = serve.subscribe(&["t"]);
        let pid = serve.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(serve.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        serve.out.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("closed"), "{rest}");
        // Its clients were told, and wait for it to come back.
        let mut errors = BufReader::new(listener.stderr.take().unwrap());
        while !line(&mut errors).contains("Reconnecting") {}
        listener.kill().unwrap();
        listener.wait().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_audit_log_is_kept_and_printed() {
    let folder = std::env::temp_dir().join(format!("kps-cli-audit-{}", std::process::id()));
    let data = folder.to_str().unwrap();
    let mut serve =
        Serve::start(&["--data", data, "--audit", "messages age=1d", "--token", "secret"]);
    assert!(
        serve.run(&["pub", "a.b", "hello", "--token", "secret", "--id", "ann"]).status.success()
    );
    assert!(!serve.run(&["pub", "a.b", "hello", "--token", "guess"]).status.success());
    assert!(Command::new("kill").arg(serve.child.id().to_string()).status().unwrap().success());
    assert!(serve.child.wait().unwrap().success());

    let all = kps(&["audit", "--data", data, "--json"]).output().unwrap();
    let rows = text(&all.stdout).lines();
    let rows: Vec<Value> = rows.map(|row| serde_json::from_str(row).unwrap()).collect();
    let of = |event: &str| rows.iter().find(|row| row["event"] == event).unwrap()["detail"].clone();
    assert_eq!(rows[0]["event"], "node_started");
    assert_eq!(of("connection_opened")["client_id"], "ann");
    assert_eq!(of("message_published")["topic"], "a.b");
    assert_eq!(of("error")["error"]["code"], "unauthorized");
    assert_eq!(of("connection_closed"), json!({ "client_id": "ann", "reason": "goodbye" }));
    for hidden in ["hello", "secret", "guess"] {
        assert!(!text(&all.stdout).contains(hidden), "{hidden} is nobody's business");
    }
    let some = ["audit", "--data", data, "--kind", "client_connected", "--from", "10m"];
    let some = kps(&some).output().unwrap();
    assert!(text(&some.stdout).ends_with("client_connected client_id=ann\n"), "{some:?}");
    assert!(!kps(&["audit", "--data", data, "--kind", "nonsense"]).status().unwrap().success());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn serve_says_why_it_cannot() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = kps(&["serve", "--listen", &address]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("bind_failed"));
    let exposed = kps(&["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(text(&exposed.stderr).contains("--token"));
    let half = kps(&["serve", "--tls-cert", "x.pem"]).output().unwrap();
    assert_eq!(half.status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn history_shows_whom_a_message_is_for_and_nothing_of_a_private_one() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("policies-{}", std::process::id()));
    let data = folder.to_str().unwrap();
    let mut serve = Serve::start(&["--data", data, "--history", "h.>"]);
    let live = serve.subscribe(&["h.>", "--id", "bob", "--count", "3"]);
    let publish = |rest: &[&str]| {
        let done = serve.run(&[&["pub", "h.t"], rest].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    publish(&["1", "--to", "bob", "--to", "principal:alice"]);
    publish(&["2", "--to", "alice"]);
    publish(&["hush", "--private", "--header", "hushed=yes"]);
    publish(&["3", "--offline", "latest"]);
    let live = live.wait_with_output().unwrap();
    assert_eq!(text(&live.stdout), "h.t 1\nh.t hush\nh.t 3\n");
    let wrong = serve.run(&["pub", "h.t", "1", "--offline", "never"]);
    assert_eq!(wrong.status.code(), Some(2));

    let pid = serve.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
    for entry in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(4).any(|found| found == b"hush"));
    }
    let kept = kps(&["history", "--data", data]).output().unwrap();
    let lines = "h.t 1 (to bob, principal:alice)\nh.t 2 (to alice)\nh.t (private)\nh.t 3\n";
    assert_eq!(text(&kept.stdout), lines);
    let kept = kps(&["history", "--data", data, "--json"]).output().unwrap();
    let objects: Vec<Value> =
        text(&kept.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["to"], json!(["bob", "principal:alice"]));
    assert_eq!((&objects[2]["private"], &objects[2]["data"]), (&json!(true), &Value::Null));
    assert_eq!(objects[3]["offline"], "latest");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn dispatch_calls_the_servers_capabilities_and_prints_the_answer() {
    let server = Serve::start(&[]);
    let saved = server.run(&["dispatch", "storage.save", r#"{"key": "k", "value": {"a": 1}}"#]);
    assert!(saved.status.success(), "{saved:?}");
    let got = server.run(&["dispatch", "storage.get", r#"{"key": "k"}"#]);
    let got: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(got["value"], json!({"a": 1}));

    let failed = server.run(&["dispatch", "storage.get", r#"{"key": "none"}"#]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("not_found"), "{failed:?}");
    let envelope = server.run(&["dispatch", "--envelope", "nobody.has"]);
    let envelope: Value = serde_json::from_slice(&envelope.stdout).unwrap();
    assert_eq!(envelope["error"]["code"], "unknown_capability");
    let wrong = server.run(&["dispatch", "storage.get", "{"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("invalid_payload"), "{wrong:?}");

    let listed = server.run(&["capabilities"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    for expected in ["storage (server)", "compute (server)", "save", "execute"] {
        assert!(listed.contains(expected), "{listed}");
    }
}

#[test]
fn serve_configures_the_cloud_of_its_storage() {
    let cloud = ["--storage-cloud", "http://127.0.0.1:1", "--storage-max-local-size", "1k"];
    let serve = Serve::start(&cloud);
    let stat: Value =
        serde_json::from_slice(&serve.run(&["dispatch", "storage.stat"]).stdout).unwrap();
    assert_eq!(stat["cloud"]["url"], json!("http://127.0.0.1:1"));
    assert_eq!(stat["cloud"]["max_local_size"], json!(1024));
    // What others could say would be where everybody's values go.
    let other = r#"{"url": "http://127.0.0.1:2"}"#;
    let refused = serve.run(&["dispatch", "storage.configure_cloud", other]);
    assert!(text(&refused.stderr).contains("unauthorized"), "{}", text(&refused.stderr));
    let mut wrong = kps(&["serve", "--listen", "127.0.0.1:0", "--storage-cloud", "ftp://cloud"]);
    let wrong = wrong.output().unwrap();
    assert!(text(&wrong.stderr).contains("--storage-cloud: url"), "{}", text(&wrong.stderr));
}

#[test]
fn serve_encrypts_its_storage_with_a_key_that_no_command_line_shows() {
    let folder = std::env::temp_dir().join(format!("kps-cli-storage-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (data, file) = (folder.join("data"), folder.join("key"));
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    std::fs::write(file, format!("{}\n", "5a".repeat(32))).unwrap();
    let storage = ["--storage-versions", "3", "--storage-quota", "1M", "--storage-compress"];
    let mut args =
        vec!["--data", data, "--storage-key-file", file, "--storage-durability", "normal"];
    args.extend(storage);
    let serve = Serve::start(&args);
    let saved = serve.run(&["dispatch", "storage.save", r#"{"key": "k", "value": "secret"}"#]);
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    let stat: Value =
        serde_json::from_slice(&serve.run(&["dispatch", "storage.stat"]).stdout).unwrap();
    for (name, value) in [
        ("encrypted", json!(true)),
        ("versions", json!(3)),
        ("quota", json!(1 << 20)),
        ("compressed", json!(true)),
        ("durability", json!("normal")),
    ] {
        assert_eq!(stat[name], value, "{name}");
    }
    let verified = kps(&["verify", data]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(
        text(&verified.stdout).contains("1 keys") && text(&verified.stdout).contains("encrypted")
    );
    drop(serve);
    let values = format!("{data}/values.db");
    let verified = kps(&["verify", &values, "--json"]).output().unwrap();
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verified["values"]["keys"], &verified["findings"]), (&json!(1), &json!([])));
    let mut damaged = std::fs::read(&values).unwrap();
    damaged[5000..].fill(0x55);
    let copy = folder.join("copy.db");
    std::fs::write(&copy, damaged).unwrap();
    let verified = kps(&["verify", copy.to_str().unwrap()]).output().unwrap();
    assert!(!verified.status.success(), "{}", text(&verified.stdout));
    let serve = |key: &str| {
        let mut command = kps(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
        command.env("KPS_STORAGE_KEY", key).output().unwrap()
    };
    let refused = serve("some words");
    assert!(!refused.status.success() && text(&refused.stderr).contains("encrypted"));
    let wrong = kps(&["serve", "--storage-durability", "never"]).output().unwrap();
    assert!(text(&wrong.stderr).contains("--storage-durability"), "{}", text(&wrong.stderr));
    std::fs::remove_dir_all(folder).unwrap();
}
