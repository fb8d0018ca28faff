//! Tasks done by other clients: `compute.execute`, `compute.map` and `compute.batch` with the target `any`, or a
//! client's id.
//!
//! Who shares a task offers the capability `task-NAME`, with the operation `run` for several items. A call is cut
//! into chunks, which the bus hands to the providers with the least to do; the chunk of one that vanishes is done
//! by another, once.

use std::{sync::Arc, time::Instant};

use kps_proto::ErrorKind;
use tokio::task::JoinSet;

use super::{
    Call, CallTarget, Callback, Capability, DispatchOptions, Failure, Fields, Operation, Outcome,
    Response, Value, remote,
    router::{Core, RegisterOptions, Route, Router},
    unknown_operation, wrong,
};
use crate::{
    compute::{Compute, cores, failed_envelope, named_item},
    net::BoxFuture,
    runtime,
};

/// Chunks that are under way at once: enough for the providers to have something to do, and few enough for a slow
/// one to end up with fewer.
const UNDER_WAY: usize = 32;
/// Items of a chunk at most, unless the caller says how many.
const LARGEST: usize = 256;

impl Router {
    /// Has this client do the task `name` for others: `compute.map` and its like with the target `any`.
    ///
    /// # Errors
    /// `not_found`: there is no such task here; `conflict`: it is shared already; why the server did not take the
    /// offer.
    pub async fn share_task(&self, name: &str) -> Result<(), Failure> {
        let compute = self.compute()?;
        compute.check(name)?;
        let shared = SharedTask { compute, task: name.into() };
        // Each calls for several items: more at once would only take them from other clients.
        let options = RegisterOptions { shared: true, concurrency: cores().max(2) };
        self.register(&capability_of(name), Arc::new(shared), options).await
    }

    /// Ends that; what others wait for is done elsewhere.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn unshare_task(&self, name: &str) -> Result<(), Failure> {
        self.unregister(&capability_of(name)).await
    }
}

fn capability_of(task: &str) -> String {
    format!("task-{task}")
}

/// A task of this process that others may call.
struct SharedTask {
    compute: Arc<Compute>,
    task: Box<str>,
}

impl Capability for SharedTask {
    fn operations(&self) -> Vec<Operation> {
        let fields = [("items", "array", "What the task is given, one after the other")];
        let summary = "Runs the task on each item; answers {results}, an envelope for each";
        vec![Operation::new("run", summary).fields(&fields)]
    }

    fn call(&self, mut call: Call) -> BoxFuture<'static, Outcome> {
        if &*call.operation != "run" {
            let failure = unknown_operation(&call.operation, &["run"]);
            return Box::pin(std::future::ready(Err(failure)));
        }
        let items = Fields::of(std::mem::take(&mut call.payload)).and_then(|mut fields| {
            let items = fields.list("items")?;
            fields.done().map(|()| items)
        });
        match items {
            Ok(items) => {
                let task = |data| Value::map([("task", (&*self.task).into()), ("data", data)]);
                let tasks: Vec<Value> = items.into_iter().map(task).collect();
                call.operation = "batch".into();
                call.payload = Value::map([("tasks", tasks.into())]);
                self.compute.call(call)
            }
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }
}

/// Whether the call is one for the clients that share tasks.
pub(super) fn is_for_sharers(to: &Route<'_>) -> bool {
    to.capability == "compute"
        && matches!(to.operation, "execute" | "map" | "batch")
        && matches!(to.options.target, CallTarget::Any | CallTarget::Client(_))
}

/// Has it done by them.
pub(super) async fn call(
    core: &Arc<Core>,
    to: Route<'_>,
    payload: Value,
    attempt: u32,
    deadline: Instant,
) -> Outcome {
    let asked = Asked::read(to.operation, payload)?;
    let shape = asked.shape;
    let listeners: Vec<Callback> =
        asked.progress.into_iter().chain(to.options.progress.clone()).collect();
    let total = asked.pieces.iter().map(|piece| piece.places.len()).sum::<usize>();
    let mut results = vec![Value::Null; total];
    let mut waiting = asked.pieces.into_iter().enumerate();
    let mut done = 0;
    // Dropped with this future: that cancels what is under way.
    let mut under_way = JoinSet::new();
    let mut begin = |under_way: &mut JoinSet<_>| {
        if let Some((number, piece)) = waiting.next() {
            let options = DispatchOptions {
                target: to.options.target.clone(),
                timeout: to.options.timeout,
                idempotency_key: to
                    .options
                    .idempotency_key
                    .as_ref()
                    .map(|k| format!("{k}#{number}")),
                ..DispatchOptions::default()
            };
            let (core, id) = (core.clone(), to.id.clone());
            let work = async move { piece.run(&core, &id, &options, attempt, deadline).await };
            under_way.spawn_on(work, &runtime::handle());
        }
    };
    for _ in 0..UNDER_WAY {
        begin(&mut under_way);
    }
    while let Some(ended) = under_way.join_next().await {
        let (places, answers) = ended.map_err(|error| {
            Failure::new(ErrorKind::Internal, format!("a chunk was not sent: {error}"))
        })?;
        done += places.len();
        for (place, envelope) in places.into_iter().zip(answers) {
            results[place] = shape.result(place, envelope)?;
        }
        begin(&mut under_way);
        let news = Value::map([("done", done.into()), ("total", total.into())]);
        listeners.iter().for_each(|listener| listener.call(news.clone()));
    }
    Ok(match shape {
        Shape::One => results.pop().unwrap_or_default(),
        _ => Value::map([("results", results.into())]),
    })
}

/// What the answer looks like, as of the operation in this process.
#[derive(Clone, Copy)]
enum Shape {
    One,
    Map,
    Batch,
}

impl Shape {
    /// What the answer has of one item's envelope.
    fn result(self, place: usize, envelope: Value) -> Outcome {
        if let Shape::Batch = self {
            return Ok(envelope);
        }
        let data = Response::outcome_of(envelope).map_err(|failure| match self {
            Shape::Map => named_item(place, failure),
            _ => failure,
        })?;
        match (self, data) {
            (Shape::Map, Value::Map(mut data)) => Ok(data.remove("result").unwrap_or_default()),
            (_, data) => Ok(data),
        }
    }
}

struct Asked {
    shape: Shape,
    pieces: Vec<Piece>,
    progress: Option<Callback>,
}

impl Asked {
    fn read(operation: &str, payload: Value) -> Result<Asked, Failure> {
        match operation {
            "execute" => {
                let (task, data) = one(payload)?;
                let pieces = pieces(task, vec![(0, data)], 1);
                Ok(Asked { shape: Shape::One, pieces, progress: None })
            }
            "map" => {
                let mut fields = Fields::of(payload)?;
                let (task, items) = (fields.text("task")?, fields.list("items")?);
                let chunk = match fields.count("chunk")? {
                    Some(0) => {
                        let sentence = "chunk is 0; it is a whole number from 1";
                        return Err(Failure::field("chunk", sentence));
                    }
                    Some(chunk) => usize::try_from(chunk).unwrap_or(usize::MAX),
                    None => usual(items.len()),
                };
                let progress = fields.callback("progress")?;
                fields.done()?;
                let pieces = pieces(task, items.into_iter().enumerate().collect(), chunk);
                Ok(Asked { shape: Shape::Map, pieces, progress })
            }
            _ => {
                let mut fields = Fields::of(payload)?;
                let tasks = fields.list("tasks")?;
                let progress = fields.callback("progress")?;
                fields.done()?;
                let chunk = usual(tasks.len());
                let mut by_task: Vec<(String, Vec<(usize, Value)>)> = Vec::new();
                let mut known = std::collections::HashMap::new();
                for (place, item) in tasks.into_iter().enumerate() {
                    let (task, data) = one(item).map_err(|failure| Failure {
                        field: Some(format!("tasks[{place}]")),
                        ..failure
                    })?;
                    let at = *known.entry(task.clone()).or_insert(by_task.len());
                    if at == by_task.len() {
                        by_task.push((task, Vec::new()));
                    }
                    by_task[at].1.push((place, data));
                }
                let pieces =
                    by_task.into_iter().flat_map(|(task, items)| pieces(task, items, chunk));
                Ok(Asked { shape: Shape::Batch, pieces: pieces.collect(), progress })
            }
        }
    }
}

/// `{task, data}`.
fn one(payload: Value) -> Result<(String, Value), Failure> {
    if !matches!(payload, Value::Map(_)) {
        return Err(wrong("task", &payload, "an object {task, data}"));
    }
    let mut fields = Fields::of(payload)?;
    let task = fields.text("task")?;
    let data = fields.any("data").unwrap_or_default();
    fields.done()?;
    Ok((task, data))
}

/// Items of a chunk, if the caller does not say.
fn usual(items: usize) -> usize {
    items.div_ceil(UNDER_WAY).clamp(1, LARGEST)
}

fn pieces(task: String, items: Vec<(usize, Value)>, chunk: usize) -> Vec<Piece> {
    let task: Arc<str> = task.into();
    let mut pieces = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let (places, items) = items.by_ref().take(chunk).unzip();
        pieces.push(Piece { task: task.clone(), places, items });
    }
    pieces
}

/// Items that one provider does.
struct Piece {
    task: Arc<str>,
    /// Where their results belong.
    places: Vec<usize>,
    items: Vec<Value>,
}

impl Piece {
    /// The places, and the envelope for each.
    async fn run(
        self,
        core: &Arc<Core>,
        id: &Arc<str>,
        options: &DispatchOptions,
        attempt: u32,
        deadline: Instant,
    ) -> (Vec<usize>, Vec<Value>) {
        let count = self.places.len();
        let capability = capability_of(&self.task);
        let action = format!("{capability}.run");
        let route =
            Route { id, action: &action, capability: &capability, operation: "run", options };
        let payload = Value::map([("items", self.items.into())]);
        let mut outcome = remote::call(core, route, payload.clone(), attempt, deadline).await.0;
        let mut redone = false;
        if is_gone(&outcome) && options.target == CallTarget::Any {
            redone = true;
            outcome = remote::call(core, route, payload, attempt, deadline).await.0;
        }
        let envelopes = outcome.map_err(|failure| explained(failure, &self.task, redone)).and_then(
            |mut answer| match &mut answer {
                Value::Map(members) => match members.remove("results") {
                    Some(Value::List(results)) if results.len() == count => Ok(results),
                    _ => Err(nonsense(&self.task)),
                },
                _ => Err(nonsense(&self.task)),
            },
        );
        let envelopes = envelopes.unwrap_or_else(|failure| vec![failed_envelope(failure); count]);
        (self.places, envelopes)
    }
}

fn is_gone(outcome: &Outcome) -> bool {
    matches!(outcome, Err(failure) if failure.kind == ErrorKind::Disconnected)
}

/// What went wrong with a chunk, for who called the task.
fn explained(failure: Failure, task: &str, redone: bool) -> Failure {
    match failure.kind {
        ErrorKind::Disconnected => remote::gone(task),
        ErrorKind::UnknownCapability if redone => remote::gone(task),
        ErrorKind::UnknownCapability | ErrorKind::UnknownOperation => {
            let sentence = format!("no client that is connected shares the task {task:?}");
            Failure { field: Some("task".into()), ..Failure::new(ErrorKind::NotFound, sentence) }
        }
        ErrorKind::TooLarge => {
            let message = format!("{}; with a smaller chunk it may fit", failure.message);
            Failure { message, ..failure }
        }
        _ => failure,
    }
}

fn nonsense(task: &str) -> Failure {
    let sentence = format!("a client that shares the task {task:?} answered with something else");
    Failure::new(ErrorKind::Internal, sentence)
}
