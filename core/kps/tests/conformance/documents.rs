//! The steps of documents.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use kps::document::{
    Document, Edit, Edited, Kind, OpenDocument, Refused, Snapshot, Start, StreamOptions, Told,
    Version,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::spawn_local};

use super::{Failure, Outcome, World, expect, fail, string, until};
use crate::value::{int, seconds, text};

/// The documents of a case, by their names in it.
pub(super) type Documents = RefCell<HashMap<String, Document>>;

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Failure::Refused(refused)
    }
}

impl From<kps::capability::Failure> for Failure {
    fn from(failure: kps::capability::Failure) -> Self {
        Failure::Kps(failure.into_error())
    }
}

fn name(step: &Value) -> &str {
    step["document"].as_str().unwrap_or("document")
}

impl World {
    fn document(&self, step: &Value) -> Document {
        self.documents.borrow()[name(step)].clone()
    }

    pub(super) async fn open_document(&self, step: &Value) -> Outcome {
        let given = &step["options"];
        let kind = given["kind"].as_str().unwrap_or("text");
        let mut options = OpenDocument::new(Kind::parse(kind).expect("a kind"));
        options.author = given["author"].as_str().map(Into::into);
        options.rebase = given["rebase"] != false;
        if let Some(timeout) = given.get("timeout") {
            options.timeout = seconds(timeout)?;
        }
        let id = text(step.get("id").unwrap_or(&json!("d")));
        let document = self.client(step).open_document(&id, options).await?;
        let (tell, mut told) = mpsc::unbounded_channel::<Told>();
        // The case may be over.
        let listening = document.listen(move |it| drop(tell.send(it)));
        let (logs, name) = (self.logs.clone(), name(step).to_owned());
        self.documents.borrow_mut().insert(name.clone(), document);
        spawn_local(async move {
            while let Some(told) = told.recv().await {
                logs.put("", &name, json!([told.value()]));
            }
            drop(listening);
        });
        Ok(())
    }

    pub(super) async fn edit(&self, step: &Value) -> Outcome {
        let edits = edits(&self.filled(&step["edit"]))?;
        let editing = self.document(step).edit(edits)?;
        if step["wait"] == false {
            return Ok(());
        }
        self.edited(step, editing.await?)
    }

    fn edited(&self, step: &Value, edited: Edited) -> Outcome {
        let Edited { op_id, version, level } = edited;
        let version = version.to_string();
        let seen = json!({ "op_id": &*op_id, "version": version, "level": level.as_str() });
        if let Some(wanted) = step.get("edited") {
            expect(wanted, &seen)?;
        }
        if let Some(name) = step["keep_version"].as_str() {
            self.kept.borrow_mut().insert(name.into(), json!(version));
        }
        Ok(())
    }

    pub(super) async fn edit_batch(&self, step: &Value) -> Outcome {
        let operations = step["operations"].as_array().expect("a list");
        let operations = operations.iter().map(|it| edits(&self.filled(it)));
        let operations = operations.collect::<Result<_, _>>()?;
        for editing in self.document(step).edit_batch(operations)? {
            editing.await?;
        }
        Ok(())
    }

    pub(super) async fn undo(&self, step: &Value) -> Outcome {
        let count = step.get("count").map_or(1, int);
        let count = u32::try_from(count).expect("a small number");
        let edited = self.document(step).undo(count).await?;
        self.edited(step, edited)
    }

    /// Waits until it reads so.
    pub(super) async fn reads(&self, step: &Value) -> Outcome {
        let document = self.document(step);
        until(|| content(document.snapshot()), &self.filled(wanted(step))).await
    }

    pub(super) async fn read_at(&self, step: &Value) -> Outcome {
        let version = version(&self.filled(&step["version"]));
        let seen = content(self.document(step).at(version).await?);
        expect(&self.filled(wanted(step)), &seen)
    }

    pub(super) async fn versions(&self, step: &Value) -> Outcome {
        let before = step.get("before").map(|it| version(&self.filled(it)));
        let limit = step.get("limit").map_or(100, int);
        let limit = u32::try_from(limit).expect("a small number");
        let versions = self.document(step).versions(before, limit).await?;
        self.answered(step, &versions)
    }

    pub(super) async fn compact(&self, step: &Value) -> Outcome {
        let keep = u32::try_from(step.get("keep").map_or(0, int)).expect("a small number");
        Ok(self.document(step).compact(keep).await?)
    }

    /// Writes all of it, and waits for the end.
    pub(super) async fn stream(&self, step: &Value) -> Outcome {
        let given = &step["options"];
        let start = match (given["before"].as_str(), given["after"].as_str()) {
            (Some(before), _) => Start::Before(before.into()),
            (_, Some(after)) => Start::After(after.into()),
            _ => given.get("position").map_or(Start::End, |position| Start::At(int(position))),
        };
        let options =
            StreamOptions { start, flush_every: Duration::from_millis(1), ..Default::default() };
        let stream = self.document(step).stream(options)?;
        for token in step["tokens"].as_array().expect("a list") {
            stream.write(&text(token))?;
            tokio::task::yield_now().await;
        }
        stream.close().await?;
        Ok(())
    }

    pub(super) fn set_presence(&self, step: &Value) {
        self.document(step).set_presence(step["state"].as_object().cloned());
    }

    /// Waits until the others are these.
    pub(super) async fn present(&self, step: &Value) -> Outcome {
        let document = self.document(step);
        let others = || {
            let others = document.presence().into_iter().map(|it| {
                let mut state = it.state;
                state.remove("version");
                json!({ "client": &*it.client, "author": &*it.author, "state": state })
            });
            Value::Array(others.collect())
        };
        until(others, &step["others"]).await
    }

    /// Waits until so many operations are not safe.
    pub(super) async fn unsynced(&self, step: &Value) -> Outcome {
        let document = self.document(step);
        until(|| json!(document.unsynced().len()), &step["count"]).await
    }

    pub(super) async fn flush_document(&self, step: &Value) -> Outcome {
        Ok(self.document(step).flush().await?)
    }

    pub(super) async fn close_document(&self, step: &Value) -> Outcome {
        let timeout = step.get("timeout").map_or(Ok(Duration::from_secs(5)), seconds)?;
        let left = self.document(step).close_within(timeout).await;
        match step.get("unsynced") {
            Some(count) => expect(count, &json!(left.len())),
            None => Ok(()),
        }
    }

    /// Whether two subscriptions were told the same bytes, which are these events.
    pub(super) async fn same_bytes(&self, step: &Value) -> Outcome {
        let subs = step["subs"].as_array().expect("names");
        for wanted in step["events"].as_array().expect("names") {
            let mut all = Vec::new();
            for sub in subs {
                let step = json!({ "sub": sub });
                let message = self.handled(&step).await;
                if message["data"]["event"] != *wanted {
                    return fail(format!("{message} is no {wanted}"));
                }
                all.push(message["raw"].clone());
            }
            if all.iter().any(|raw| *raw != all[0]) {
                return fail(format!("{all:?} differ"));
            }
        }
        Ok(())
    }
}

fn wanted(step: &Value) -> &Value {
    step.get("text").unwrap_or(&step["value"])
}

fn content(snapshot: Snapshot) -> Value {
    match snapshot {
        Snapshot::Text(text) => json!(text),
        Snapshot::Value(value) => value,
    }
}

fn version(value: &Value) -> Version {
    string(&json!({ "version": value }), "version").parse().expect("a version")
}

fn edits(given: &Value) -> Result<Vec<Edit>, Failure> {
    let one = |value: &Value| {
        let edit = kps::capability::Value::from_json(long(value).to_string().as_bytes());
        let edit = Edit::from_value(edit.expect("JSON"));
        edit.map_err(|reject| Failure::Refused(Refused::from(reject)))
    };
    match given {
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// With long texts written out.
fn long(value: &Value) -> Value {
    match value {
        Value::Object(fields) if fields.contains_key("$repeat") => json!(text(value)),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), long(value))).collect()
        }
        Value::Array(items) => items.iter().map(long).collect(),
        other => other.clone(),
    }
}
