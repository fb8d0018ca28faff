//! Live documents; `kps/documents.py` is their face.

mod ears;
mod edit;
mod live;
mod plain;
mod stream;
mod yjs;

use kps::{
    Client as CoreClient,
    capability::Failure,
    document::{Kind, OpenDocument},
};
use pyo3::prelude::*;

use self::live::Open;
pub(crate) use self::{
    edit::EditReceipt, live::Live, plain::LivePlain, stream::LiveStream, yjs::LiveYjs,
};
use crate::{
    arguments::{count, given, invalid, seconds, text},
    calls::raised,
    client::{Client, finish},
    wait::Await,
};

/// The coroutine that opens a document.
#[allow(clippy::too_many_arguments)]
pub(crate) fn open(
    py: Python<'_>,
    client: &Client,
    id: &Bound<'_, PyAny>,
    kind: &Bound<'_, PyAny>,
    author: Option<&Bound<'_, PyAny>>,
    rebase: bool,
    rebases: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Await> {
    let (id, name) = (text(id, "id")?.to_owned(), text(kind, "kind")?);
    let Some(kind) = Kind::parse(name) else {
        return Err(invalid(py, format!("kind is {name:?}; there are text, json and yjs")));
    };
    let mut options = OpenDocument { rebase, ..OpenDocument::new(kind) };
    if let Some(author) = given(author) {
        options.author = Some(text(author, "author")?.to_owned());
    }
    if let Some(rebases) = given(rebases) {
        options.rebases = u32::try_from(count(rebases, "rebases", 0)?).unwrap_or(u32::MAX);
    }
    if let Some(timeout) = given(timeout) {
        options.timeout = seconds(timeout, "timeout")?;
    }
    let client = CoreClient::from(client.shared(py)?.link().clone());
    let opened = async move {
        match kind {
            Kind::Yjs => client.open_yjs(&id, options).await.map(Open::Yjs),
            Kind::Text | Kind::Json => client.open_document(&id, options).await.map(Open::Plain),
        }
    };
    Ok(finish("open_document", opened, |py, opened| {
        opened.map_err(|failure| raised(py, &failure))?.into_object(py)
    }))
}

fn done(py: Python<'_>, result: Result<(), Failure>) -> PyResult<Py<PyAny>> {
    result.map(|()| py.None()).map_err(|failure| raised(py, &failure))
}
