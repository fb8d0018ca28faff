//! kps' own capabilities, each made when it is first called.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

#[cfg(feature = "store")]
use kps_proto::ErrorKind;
#[cfg(feature = "store")]
use parking_lot::Mutex;
#[cfg(feature = "store")]
use tokio::sync::watch;

#[cfg(feature = "store")]
use super::storage::{Storage, StorageOptions};
use super::{Capability, Failure, documents, listing, router::Core, sync};
use crate::{
    client::ConnectOptions,
    compute::{Compute, ComputeOptions},
    document::{DocumentOptions, Documents},
};

/// The names that programs cannot take.
const NAMES: [&str; 5] = [listing::NAME, "storage", "compute", "document", "sync"];

/// An attempt to open the storage: how it ended, once it has.
#[cfg(feature = "store")]
type Opening = watch::Receiver<Option<Result<(), Failure>>>;

/// What a process' own capabilities keep: several routers may share it.
#[derive(Default)]
pub(crate) struct Builtins {
    #[cfg(feature = "store")]
    storage_options: StorageOptions,
    #[cfg(feature = "store")]
    own_storage: bool,
    #[cfg(feature = "store")]
    storage: OnceLock<Arc<Storage>>,
    /// Held while the storage is opened: there is one.
    #[cfg(feature = "store")]
    opening: Mutex<()>,
    /// How it ended, where the storage is opened beside the runtime's thread.
    #[cfg(feature = "store")]
    opened: Mutex<Option<Opening>>,
    compute: OnceLock<Result<Arc<Compute>, Failure>>,
    documents: Arc<documents::Kept>,
    document_options: DocumentOptions,
    sync: sync::Kept,
}

impl Builtins {
    /// Those of a client.
    pub(super) fn of(_options: &ConnectOptions) -> Self {
        #[cfg(feature = "store")]
        if let Some(storage) = &_options.storage {
            return Builtins::with_storage(storage.clone());
        }
        Builtins::default()
    }

    /// Whether somebody said how the storage is kept.
    #[cfg(feature = "store")]
    pub(super) fn has_own_storage(&self) -> bool {
        self.own_storage
    }

    /// With `storage` as these options say, instead of in memory.
    #[cfg(feature = "store")]
    pub(crate) fn with_storage(storage_options: StorageOptions) -> Self {
        Builtins { storage_options, own_storage: true, ..Builtins::default() }
    }

    /// With documents that are kept so.
    pub(crate) fn with_documents(self, document_options: DocumentOptions) -> Self {
        Builtins { document_options, ..self }
    }

    /// Whether the name is one of kps' own.
    pub(crate) fn has(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// The capability of this name, or why it could not begin.
    pub(super) fn get(
        &self,
        name: &str,
        core: &Arc<Core>,
    ) -> Option<Result<Arc<dyn Capability>, Failure>> {
        match name {
            #[cfg(feature = "store")]
            "storage" => Some(self.storage().map(|it| it as Arc<dyn Capability>)),
            "compute" => Some(self.compute().map(|it| it as Arc<dyn Capability>)),
            "document" => Some(self.documents.capability(core, || self.open_documents())),
            "sync" => Some(Ok(self.sync.capability(core))),
            _ => None,
        }
    }

    #[cfg(feature = "store")]
    pub(crate) fn storage(&self) -> Result<Arc<Storage>, Failure> {
        if let Some(storage) = self.storage.get() {
            return Ok(storage.clone());
        }
        let _opening = self.opening.lock();
        if let Some(storage) = self.storage.get() {
            return Ok(storage.clone());
        }
        // What keeps it from being opened may pass: the next call tries again.
        let storage = Arc::new(Storage::open(self.storage_options.clone())?);
        Ok(self.storage.get_or_init(|| storage).clone())
    }

    /// Waits until the storage is open: its disk may take its time, which the thread that waits, the runtime's,
    /// does not have. Who comes meanwhile waits for the same attempt; the next one tries again.
    #[cfg(feature = "store")]
    pub(super) async fn open_storage(self: &Arc<Self>) -> Result<(), Failure> {
        if self.storage.get().is_some() {
            return Ok(());
        }
        let mut opened = {
            let mut under_way = self.opened.lock();
            match &*under_way {
                Some(opened) if opened.borrow().is_none() => opened.clone(),
                _ => under_way.insert(self.start_opening()).clone(),
            }
        };
        let ended = opened.wait_for(Option::is_some).await;
        let lost = || Failure::new(ErrorKind::Closed, "the process is about to end");
        ended.map_or_else(|_| Err(lost()), |ended| ended.clone().unwrap_or(Ok(())))
    }

    #[cfg(feature = "store")]
    fn start_opening(self: &Arc<Self>) -> Opening {
        let (tell, opened) = watch::channel(None);
        let builtins = self.clone();
        crate::runtime::handle().spawn_blocking(move || {
            tell.send_replace(Some(builtins.storage().map(|_| ())));
        });
        opened
    }

    /// Where tasks run.
    pub(crate) fn compute(&self) -> Result<Arc<Compute>, Failure> {
        let start = || Ok(Arc::new(Compute::new(ComputeOptions::default())?));
        self.compute.get_or_init(start).clone()
    }

    /// Where the storage is a file, there; otherwise in memory.
    fn open_documents(&self) -> Result<Documents, Failure> {
        let options = self.document_options.clone();
        #[cfg(feature = "store")]
        if self.storage_options.path.is_some() {
            let values = self.storage()?.values();
            return Ok(Documents::in_values(values, true, options));
        }
        Ok(Documents::in_memory(options))
    }

    /// Stores what is not stored of documents, and takes no more of it.
    pub(crate) async fn close_documents(&self) {
        self.documents.close().await;
    }

    /// From now on calls of `document` are answered here.
    pub(crate) fn serve_documents(
        &self,
        grace: Duration,
        is_connected: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) {
        self.documents.serve(grace, Box::new(is_connected));
    }

    /// The documents, told about through the client of `core`.
    pub(super) fn documents(&self, core: &Arc<Core>) -> Result<Documents, Failure> {
        self.documents.of(core, || self.open_documents())
    }

    /// A client's connection or session ended.
    pub(crate) fn client_left(&self, namespace: &str, client_id: &str, left: documents::Left) {
        self.documents.client_left(namespace, client_id, left);
    }

    /// Who is in which channel, for the server.
    pub(crate) fn presence(&self) -> &Arc<sync::Presence> {
        &self.sync.presence
    }

    /// All of them that can be listed.
    pub(super) fn all(&self, core: &Arc<Core>) -> Vec<(&'static str, Arc<dyn Capability>)> {
        NAMES.into_iter().filter_map(|name| Some((name, core.find(name)?.ok()?))).collect()
    }

    pub(super) async fn close(&self) {
        // Before what they are stored in.
        self.documents.close().await;
        #[cfg(feature = "store")]
        if let Some(storage) = self.storage.get() {
            Capability::close(&**storage).await;
        }
        if let Some(Ok(compute)) = self.compute.get() {
            compute.close();
        }
        self.sync.close().await;
    }
}
