//! The steps of `client.storage`, and a storage's options.

use kps::capability::{
    CallTarget, Failure, Value as Given,
    storage::{Spelling, StorageClient, StorageOptions},
};
use serde_json::{Value, json};

use super::{Outcome, World, string};
use crate::value::text;

impl World {
    /// Options of a storage; a path is a file of the case's.
    pub(super) fn storage_options(&self, given: &Value) -> kps::Result<StorageOptions> {
        let mut given = given.clone();
        if let Some(name) = given["path"]["$file"].as_str() {
            std::fs::create_dir_all(&self.folder.0).expect("a temporary folder");
            given["path"] = json!(self.folder.0.join(name).to_str());
        }
        StorageOptions::read(self.given(&given), Spelling::Snake)
    }

    fn storage(&self, step: &Value) -> StorageClient {
        let target = step["options"]["target"].as_str();
        self.client(step).storage().at(target.map_or(CallTarget::Nearest, CallTarget::parse))
    }

    /// Saves the pieces as one value.
    pub(super) async fn save_stream(&self, step: &Value) -> Outcome {
        let mut fields = step["options"].clone();
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("target");
        }
        fields["key"] = json!(text(&step["key"]));
        let Given::List(pieces) = self.given(&step["pieces"]) else { panic!("a list of pieces") };
        let stored = async {
            let mut upload = self.storage(step).upload(self.given(&fields)).await?;
            for piece in pieces {
                let Given::Bytes(piece) = piece else { panic!("pieces are bytes") };
                upload.write(piece).await?;
            }
            upload.finish().await
        };
        self.answered(step, &stored.await.map_err(Failure::into_error)?)
    }

    /// Reads a value piece by piece; the answer is all of it.
    pub(super) async fn read_stream(&self, step: &Value) -> Outcome {
        let read = async {
            let mut download = self.storage(step).download(string(step, "key")).await?;
            let mut all = Vec::new();
            while let Some(piece) = download.next().await {
                all.extend_from_slice(&piece?);
            }
            Ok(all)
        };
        let all: Vec<u8> = read.await.map_err(Failure::into_error)?;
        self.answered(step, &Given::Bytes(all.into()))
    }
}
