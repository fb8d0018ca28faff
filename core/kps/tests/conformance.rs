//! Runs the language-neutral cases of `tests/conformance` against the Rust client and server, and
//! compares the names that travel with `api.json`.
#![allow(
    clippy::unwrap_used,
    clippy::unit_arg,
    clippy::await_holding_refcell_ref,
    reason = "a case that is not as written ends the test; its steps run one at a time on one thread"
)]

#[path = "conformance/given.rs"]
mod given;
#[path = "conformance/link.rs"]
mod link;
#[path = "conformance/log.rs"]
mod log;
#[path = "conformance/reader.rs"]
mod reader;
#[path = "conformance/scripted.rs"]
mod scripted;
#[path = "conformance/value.rs"]
mod value;
#[path = "conformance/world.rs"]
mod world;

use std::{collections::BTreeSet, fs, path::PathBuf, rc::Rc};

use kps::{
    ErrorKind,
    events::vocabulary,
    message::{GapReason, RowStatus},
    options::Overflow,
};
use serde_json::{Value, json};
use world::World;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

fn read(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

macro_rules! rows {
    ($($row:ident)*) => {
        const ROWS: &[&str] = &[$(stringify!($row)),*];
        $(
            #[test]
            fn $row() {
                run_all(stringify!($row));
            }
        )*
    };
}

rows! {
    close compute connect dispatch documents durable history iterate on outbox publish publish_to_id publish_to_id_with_ack publish_to_server
    publish_with_ack register request retain rows server status storage subscribe sync tasks unsubscribe wait wait_any
}

#[test]
fn every_file_of_cases_is_run() {
    let files: BTreeSet<_> = fs::read_dir(folder().join("cases"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(files, ROWS.iter().map(|row| row.to_string()).collect());
}

fn run_all(row: &str) {
    let mut failures = Vec::new();
    let content = read(folder().join(format!("cases/{row}.json")));
    for case in content["cases"].as_array().unwrap() {
        for (way, defaults) in ways(case, &content) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            if let Err(why) = local.block_on(&runtime, run(case, &defaults)) {
                failures.push(format!("{} {way}\n    {why}", case["name"].as_str().unwrap()));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The ways a case is taken, each with what its steps have unless they say otherwise.
fn ways(case: &Value, file: &Value) -> Vec<(String, Value)> {
    let ways = case.get("ways").or(file.get("ways")).and_then(Value::as_object);
    let ways = ways.into_iter().flatten().map(|(way, defaults)| (way.clone(), defaults.clone()));
    let ways: Vec<_> = ways.collect();
    if ways.is_empty() { vec![(String::new(), Value::Null)] } else { ways }
}

/// The step, with what its way adds.
fn in_way(step: &Value, defaults: &Value) -> Value {
    let mut step = step.clone();
    let name = step["do"].as_str().unwrap_or_default().to_owned();
    for (field, value) in defaults[&name].as_object().into_iter().flatten() {
        match (step.get_mut(field), value) {
            (None, value) => step[field] = value.clone(),
            (Some(Value::Object(own)), Value::Object(more)) => {
                for (key, value) in more {
                    own.entry(key).or_insert_with(|| value.clone());
                }
            }
            _ => {}
        }
    }
    step
}

async fn run(case: &Value, defaults: &Value) -> Result<(), String> {
    let world = Rc::new(World::default());
    let options = case.get("server").cloned().unwrap_or_else(|| json!({}));
    let start = json!({ "do": "start_server", "options": options });
    let steps = case["steps"].as_array().unwrap().iter().map(|step| in_way(step, defaults));
    let mut outcome = Ok(());
    for step in std::iter::once(start).chain(steps) {
        if let Err(why) = world.take(&step).await {
            outcome = Err(format!("in step {step}: {why}"));
            break;
        }
    }
    if outcome.is_ok() {
        outcome = world.join_all().await;
    }
    world.end().await;
    outcome
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn error_codes_are_those_of_the_description() {
    let api = read(folder().join("api.json"));
    let codes = api["errors"]["codes"].as_array().unwrap();
    let described: Vec<_> = codes.iter().map(|entry| entry["code"].as_str().unwrap()).collect();
    let have: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(have, described);
}

#[test]
fn codes_of_documents_are_those_of_the_description() {
    let codes = &read(folder().join("api.json"))["errors"]["documents"]["codes"];
    let known: Vec<&str> = kps::document::Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(json!(known), *codes);
}

#[test]
fn enums_are_those_of_the_description() {
    let enums = &read(folder().join("api.json"))["enums"];
    let overflow: Vec<_> = (0..).map_while(Overflow::from_number).map(Overflow::as_str).collect();
    assert_eq!(overflow, names(&enums["Overflow"]));
    let status: Vec<_> = (0..).map_while(RowStatus::from_number).map(RowStatus::as_str).collect();
    assert_eq!(status, names(&enums["RowStatus"]));
    let reasons: Vec<_> = (0..8).map(|number| GapReason::from_number(number).as_str()).collect();
    assert_eq!(reasons, names(&enums["GapReason"]));
}

#[test]
fn events_are_those_of_the_description() {
    let events = &read(folder().join("api.json"))["events"];
    for (side, words) in [("client", vocabulary::CLIENT), ("server", vocabulary::SERVER)] {
        let described: Vec<_> = events[side]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| (event["name"].as_str().unwrap(), names(&event["args"])))
            .collect();
        let have: Vec<_> = words.iter().map(|word| (word.name, word.arguments.to_vec())).collect();
        assert_eq!(have, described, "{side}");
    }
}
