//! `kps`: what capabilities there are, here and elsewhere.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Call, Capability, Failure, Operation, Outcome, Value, router::Core, unknown_operation,
};
use crate::{
    client::{Client, Json},
    events::ClientState,
    net::BoxFuture,
};

/// The capability's name.
pub(super) const NAME: &str = "kps";
/// Who offers something tells what, when asked on this topic.
pub(super) const DESCRIBE: &str = "kps.call.kps.describe";
/// How long others may take to tell.
const PATIENCE: Duration = Duration::from_secs(2);

/// The capability.
pub(super) struct Listing(pub(super) Weak<Core>);

impl Capability for Listing {
    fn operations(&self) -> Vec<Operation> {
        vec![
            Operation::new("capabilities", "Lists what can be called, here and elsewhere")
                .fields(&[]),
            Operation::new("ping", "Answers with what it was given"),
        ]
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let core = self.0.upgrade();
        Box::pin(async move {
            match (&*call.operation, core) {
                ("ping", _) => Ok(call.payload),
                ("capabilities", Some(core)) => Ok(list(&core, call.deadline).await),
                ("capabilities", None) => Ok(Value::Null),
                (other, _) => Err(unknown_operation(other, &["capabilities", "ping"])),
            }
        })
    }
}

/// `{capabilities: [{name, operations, provider, shared}], complete}`: `provider` is `local`, `server` or a
/// client's id; `complete` is false if somebody did not tell in time.
async fn list(core: &Arc<Core>, deadline: Option<Instant>) -> Value {
    let mut all = described(core, "local", true);
    let mut complete = true;
    if let Ok(client) = core.client()
        && client.state() == ClientState::Connected
    {
        let left = deadline.map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()) / 2);
        match ask(&client, left.min(PATIENCE)).await {
            Ok((others, told)) => {
                all.extend(others);
                complete = told;
            }
            Err(_) => complete = false,
        }
    }
    Value::map([("capabilities", all.into()), ("complete", complete.into())])
}

/// What `core` can do, for its own process (`everything`) or for others.
pub(super) fn described(core: &Arc<Core>, provider: &str, everything: bool) -> Vec<Value> {
    let own = core.all().into_iter().filter(|(_, _, shared)| everything || *shared);
    let own = own.map(|(name, capability, shared)| one(&name, &*capability, provider, shared));
    let builtins = core.builtins.all(core).into_iter();
    let builtins = builtins
        .filter(|_| everything)
        .map(|(name, capability)| one(name, &*capability, provider, false));
    builtins.chain(own).collect()
}

/// What the server itself can do.
pub(super) fn of_server(core: &Arc<Core>) -> Vec<Value> {
    let all = core.builtins.all(core).into_iter();
    all.map(|(name, capability)| one(name, &*capability, "server", true)).collect()
}

fn one(name: &str, capability: &dyn Capability, provider: &str, shared: bool) -> Value {
    let operation = |operation: Operation| {
        Value::map([
            ("name", operation.name.into()),
            ("summary", operation.summary.into()),
            ("schema", operation.schema),
        ])
    };
    let operations: Vec<Value> = capability.operations().into_iter().map(operation).collect();
    Value::map([
        ("name", name.into()),
        ("provider", provider.into()),
        ("shared", shared.into()),
        ("operations", operations.into()),
    ])
}

/// What others tell, and whether all did.
async fn ask(client: &Client, patience: Duration) -> Result<(Vec<Value>, bool), Failure> {
    let rows = client.publish_with_ack(DESCRIBE, Json(()), patience)?.wait().await?;
    let own = client.id().unwrap_or_default();
    let mut rows: Vec<_> = rows.into_values().filter(|row| *row.client_id != *own).collect();
    rows.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    let complete = rows.iter().all(|row| row.success());
    let told = rows.into_iter().filter_map(|row| {
        let value = Value::from_json(&row.data?.bytes).ok()?;
        Some(match value {
            Value::List(list) => list,
            _ => Vec::new(),
        })
    });
    Ok((told.flatten().collect(), complete))
}
