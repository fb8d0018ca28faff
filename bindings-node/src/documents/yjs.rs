//! Yjs documents; `ts/yjs-document.ts` is their face.

use napi::bindgen_prelude::{Buffer, Uint8Array};
use napi_derive::napi;

use super::{edit::edits_of, told};
use crate::{
    bridge::Bridge,
    error::{Result, thrown},
};

#[napi]
impl Bridge {
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
}
