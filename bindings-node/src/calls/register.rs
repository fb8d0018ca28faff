//! Registering capabilities.

use std::sync::Arc;

use bytes::Bytes;
use kps::capability::{Failure, Operation, RegisterOptions, Value};
use napi_derive::napi;
use serde::Deserialize;

use super::provider::Provider;
use crate::{
    bridge::Bridge,
    complete::Completion,
    error::{Result, invalid, thrown},
};

/// A capability as JavaScript describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    shared: bool,
    concurrency: Option<usize>,
    operations: Vec<Method>,
    init: bool,
    close: bool,
}

/// One of its operations.
#[derive(Deserialize)]
struct Method {
    name: String,
    summary: String,
    #[serde(default)]
    schema: Value,
}

#[napi]
impl Bridge {
    /// Offers JavaScript's capability `provider` under `name`. Call `token` ends when it may be called.
    #[napi]
    pub fn register(
        &self,
        client: u32,
        name: String,
        provider: u32,
        described: String,
        token: u32,
    ) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let described: Described = serde_json::from_str(&described).map_err(invalid)?;
        let mut options =
            RegisterOptions { shared: described.shared, ..RegisterOptions::default() };
        crate::options::set(&mut options.concurrency, described.concurrency);
        let operations = described.operations.into_iter().map(|each| {
            let mut operation = Operation::new(each.name, each.summary);
            operation.schema = each.schema;
            operation
        });
        let provider = Arc::new(Provider {
            host: self.shared.host.clone(),
            number: provider,
            operations: operations.collect(),
            has_init: described.init,
            has_close: described.close,
        });
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let result = router.register(&name, provider, options).await;
            completions.push(Completion::Ended { token, json: told(result) });
        });
        Ok(())
    }

    /// Takes a capability away. Call `token` ends when it is closed.
    #[napi]
    pub fn unregister(&self, client: u32, name: String, token: u32) -> Result<()> {
        let router = self.shared.client(client).map_err(thrown)?.router();
        let completions = self.shared.completions.clone();
        kps::runtime::spawn(async move {
            let result = router.unregister(&name).await;
            completions.push(Completion::Ended { token, json: told(result) });
        });
        Ok(())
    }
}

/// How a call of the native module ended, as JSON.
pub(super) fn told(result: std::result::Result<(), Failure>) -> Bytes {
    let (name, value) = match result {
        Ok(()) => ("ok", Value::Null),
        Err(failure) => ("error", failure.into_value()),
    };
    // There is nothing in it that JSON has no word for.
    Value::map([(name, value)]).to_json().unwrap_or_default().into()
}
