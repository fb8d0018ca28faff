//! What is known of a document, and what it was.

use std::str::FromStr;

use kps::{
    Error, ErrorKind,
    document::{Snapshot, Version},
};
use napi_derive::napi;
use serde_json::json;

use super::told;
use crate::{
    bridge::Bridge,
    error::{Result, invalid, thrown},
};

#[napi]
impl Bridge {
    /// The text, or the value's JSON.
    #[napi]
    pub fn content(&self, number: u32) -> Result<String> {
        Ok(content(self.document(number)?.snapshot()))
    }

    /// The server's version, as far as it was heard of.
    #[napi]
    pub fn document_version(&self, number: u32) -> Result<String> {
        Ok(self.live(number)?.version().to_string())
    }

    /// Up to which version everything is in the server's store.
    #[napi]
    pub fn checkpointed(&self, number: u32) -> Result<String> {
        Ok(self.live(number)?.checkpointed().to_string())
    }

    /// Whether there is a connection, and everything that happened so far is here.
    #[napi]
    pub fn document_connected(&self, number: u32) -> Result<bool> {
        Ok(self.live(number)?.is_connected())
    }

    /// Own operations that a crash of the server now would lose.
    #[napi]
    pub fn unsynced(&self, number: u32) -> Result<Vec<String>> {
        let unsynced = self.live(number)?.unsynced();
        Ok(unsynced.iter().map(ToString::to_string).collect())
    }

    /// Everybody else who is there, as JSON.
    #[napi]
    pub fn presence(&self, number: u32) -> Result<String> {
        Ok(json!(self.live(number)?.presence()).to_string())
    }

    /// Tells everybody about this client: an object as JSON; none: it is not there any more.
    #[napi]
    pub fn set_presence(&self, number: u32, state: Option<String>) -> Result<()> {
        let document = self.live(number)?;
        let state = state.map(|state| serde_json::from_str(&state)).transpose().map_err(invalid)?;
        document.set_presence(state);
        Ok(())
    }

    /// Call `token` ends with the content that a version had: text, or the value's JSON.
    #[napi]
    pub fn at(&self, number: u32, token: u32, version: String) -> Result<()> {
        let document = self.document(number)?;
        let version = version_of(&version, "version")?;
        self.later(token, async move {
            let snapshot = document.at(version).await;
            snapshot.map(content).map_or_else(told::failure, told::ok)
        });
        Ok(())
    }

    /// Call `token` ends with the operations that are kept, the newest first.
    #[napi]
    pub fn versions(
        &self,
        number: u32,
        token: u32,
        before: Option<String>,
        limit: u32,
    ) -> Result<()> {
        let document = self.document(number)?;
        let before = before.map(|before| version_of(&before, "before")).transpose()?;
        self.later(token, async move {
            let versions = document.versions(before, limit).await;
            versions.map_or_else(told::failure, told::ok)
        });
        Ok(())
    }

    /// Call `token` ends when the server has forgotten all operations but the last `keep`.
    #[napi]
    pub fn compact(&self, number: u32, token: u32, keep: u32) -> Result<()> {
        let document = self.document(number)?;
        self.later(token, async move {
            document.compact(keep).await.map_or_else(told::failure, told::ok)
        });
        Ok(())
    }
}

fn content(snapshot: Snapshot) -> String {
    match snapshot {
        Snapshot::Text(text) => text,
        Snapshot::Value(value) => value.to_string(),
    }
}

fn version_of(text: &str, name: &str) -> Result<Version> {
    Version::from_str(text).map_err(|()| {
        let sentence = format!("{name} is no version: they are written W/\"17\"");
        thrown(Error::new(ErrorKind::InvalidArgument, sentence))
    })
}
