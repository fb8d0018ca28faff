//! `kps dispatch` and `kps capabilities`.

use std::time::Duration;

use clap::Args;
use kps_proto::{Error, ErrorKind, Result};

use super::{
    duration,
    link::{self, Link},
};
use crate::{
    capability::{CallTarget, DispatchOptions, Response, Value},
    client::Client,
    runtime,
};

/// Call an operation of a capability and print its answer.
#[derive(Args)]
pub(super) struct Dispatch {
    /// capability.operation, like storage.get or ml.embed
    action: String,
    /// What the operation is given, as JSON; bytes are {"$bytes": "base64"}
    #[arg(default_value = "null", allow_negative_numbers = true)]
    payload: String,
    /// Who does it: server, any, or a client's id. Without it kps' own capabilities are the server's, and
    /// others whoever offers them
    #[arg(long, value_name = "WHO")]
    target: Option<String>,
    /// How long to wait for the answer, over all attempts
    #[arg(long, value_parser = duration, default_value = "5s", value_name = "TIME")]
    timeout: Duration,
    /// How often to try again what failed and may succeed later
    #[arg(long, default_value_t = 0, value_name = "N")]
    retry: u32,
    /// Calls with one key are done once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the whole envelope: id, status, data or error, duration, attempts
    #[arg(long)]
    envelope: bool,
    #[command(flatten)]
    link: Link,
}

impl Dispatch {
    pub(super) fn run(self) -> Result<()> {
        let payload = Value::from_json(self.payload.as_bytes()).map_err(|error| {
            Error::new(ErrorKind::InvalidPayload, format!("the payload is not JSON: {error}"))
        })?;
        let is_own = ["storage.", "compute.", "document.", "sync.", "kps."];
        let is_own = is_own.iter().any(|own| self.action.starts_with(own));
        let target = match &self.target {
            Some(target) => CallTarget::parse(target),
            None if is_own => CallTarget::Server,
            None => CallTarget::Any,
        };
        let options = DispatchOptions {
            timeout: self.timeout,
            retry: self.retry,
            target,
            idempotency_key: self.idempotency_key,
            progress: None,
        };
        let response = call(&self.link, &self.action, payload, options)?;
        if self.envelope {
            let is_ok = response.is_ok();
            print(&response.into_value())?;
            return if is_ok {
                Ok(())
            } else {
                Err(Error::new(ErrorKind::HandlerFailed, "it failed"))
            };
        }
        print(&response.unwrap().map_err(crate::capability::Failure::into_error)?)
    }
}

/// List what can be called: the server's capabilities, and those that clients offer.
#[derive(Args)]
pub(super) struct Capabilities {
    /// Print JSON, with the schemas of the payloads
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    link: Link,
}

impl Capabilities {
    pub(super) fn run(self) -> Result<()> {
        let options = DispatchOptions::default();
        let response = call(&self.link, "kps.capabilities", Value::Null, options)?;
        let listed = response.unwrap().map_err(crate::capability::Failure::into_error)?;
        let all = match listed.get("capabilities") {
            // What this command itself could do is not worth telling.
            Some(Value::List(all)) => {
                all.iter().filter(|one| one.get("provider") != Some(&"local".into()))
            }
            _ => return print(&listed),
        };
        if self.json {
            return print(&Value::List(all.cloned().collect()));
        }
        let text = |value: Option<&Value>| match value {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        for one in all {
            println!("{} ({})", text(one.get("name")), text(one.get("provider")));
            let Some(Value::List(operations)) = one.get("operations") else { continue };
            for operation in operations {
                let (name, summary) = (text(operation.get("name")), text(operation.get("summary")));
                println!("  {name:16} {summary}");
            }
        }
        if listed.get("complete") == Some(&Value::Bool(false)) {
            eprintln!("kps: somebody did not tell in time: the list may not be complete");
        }
        Ok(())
    }
}

fn call(link: &Link, action: &str, payload: Value, options: DispatchOptions) -> Result<Response> {
    let (bridge, _inbox) = link.connect()?;
    let router = Client::from(bridge.clone()).capabilities();
    let response = runtime::handle().block_on(router.dispatch(action, payload, options));
    link::close(&bridge);
    Ok(response)
}

fn print(value: &Value) -> Result<()> {
    let text = value.to_json().map_err(|error| Error::new(ErrorKind::Internal, error))?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
