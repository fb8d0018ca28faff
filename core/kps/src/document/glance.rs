//! What a document is, without its content.

use std::sync::Arc;

use kps_proto::bus::Grants;

use super::{
    Documents,
    engine::{Kind, Version},
};
use crate::capability::Failure;

impl Documents {
    /// The kind and newest version of a document that is there, for somebody in this process who may read it.
    pub(crate) async fn glance(
        &self,
        namespace: Arc<str>,
        id: &str,
        grants: &Grants,
    ) -> Result<(Kind, Version), Failure> {
        let name = (namespace, id.into());
        self.0.check_may(&name, grants, "read").await?;
        let slot = self.0.open(&name, None).await?;
        slot.with(|desk| Ok((desk.document.kind(), desk.document.version())))
    }
}
