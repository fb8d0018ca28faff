//! Yjs documents; `ts/yjs-document.ts` is their face.

use kps::{Error, ErrorKind, document::YjsDocument};
use napi::bindgen_prelude::{Buffer, Uint8Array};
use napi_derive::napi;
use serde_json::json;

use super::{Live, Options, edit::edits_of, told};
use crate::{
    bridge::Bridge,
    error::{Result, invalid, thrown},
};

#[napi]
impl Bridge {
    /// Opens a Yjs document under `number`. Call `token` ends with what never changes of it.
    #[napi]
    pub fn open_yjs(
        &self,
        client: u32,
        token: u32,
        number: u32,
        id: String,
        options: String,
    ) -> Result<()> {
        let client = kps::Client::from(self.shared.client(client).map_err(thrown)?.bridge);
        let options: Options = serde_json::from_str(&options).map_err(invalid)?;
        let options = options.try_into().map_err(thrown)?;
        let documents = self.shared.documents.clone();
        self.later(token, async move {
            match client.open_yjs(&id, options).await {
                Ok(document) => {
                    let (id, author) = (document.id().clone(), document.author().clone());
                    documents.add(number, Live::Yjs(document));
                    told::ok(json!({ "id": id, "author": author }))
                }
                Err(failure) => told::failure(failure),
            }
        });
        Ok(())
    }

    /// The text of a root.
    #[napi]
    pub fn yjs_text(&self, number: u32, root: String) -> Result<String> {
        Ok(self.yjs(number)?.text(&root))
    }

    /// All roots, as JSON.
    #[napi]
    pub fn yjs_value(&self, number: u32) -> Result<String> {
        Ok(self.yjs(number)?.value().to_string())
    }

    /// All of it, or what one with this state vector misses, as an update.
    #[napi]
    pub fn yjs_state(&self, number: u32, state_vector: Option<Uint8Array>) -> Result<Buffer> {
        let state = self.yjs(number)?.state(state_vector.as_deref());
        Ok(state.map_err(|failure| thrown(failure.into_error()))?.to_vec().into())
    }

    /// What it has of whom.
    #[napi]
    pub fn yjs_state_vector(&self, number: u32) -> Result<Buffer> {
        Ok(self.yjs(number)?.state_vector().into())
    }

    /// Takes an update. What is returned says why not, as JSON.
    #[napi]
    pub fn yjs_apply(&self, number: u32, update: Uint8Array) -> Result<Option<String>> {
        let applied = self.yjs(number)?.apply_update(&update);
        Ok(applied.err().map(|it| told::refused(&it)))
    }

    /// Edits the text of a root. What is returned says why not, as JSON.
    #[napi]
    pub fn yjs_edit(
        &self,
        number: u32,
        root: String,
        edits: String,
        parts: Option<Vec<Uint8Array>>,
    ) -> Result<Option<String>> {
        let document = self.yjs(number)?;
        let edits = self.value(&edits, parts).and_then(edits_of);
        let edited = edits.and_then(|edits| document.edit(&root, edits));
        Ok(edited.err().map(|it| told::refused(&it)))
    }

    fn yjs(&self, number: u32) -> Result<YjsDocument> {
        match self.live(number)? {
            Live::Yjs(document) => Ok(document),
            Live::Plain(_) => {
                let sentence = "this document is opened by openDocument";
                Err(thrown(Error::new(ErrorKind::InvalidArgument, sentence)))
            }
        }
    }
}
