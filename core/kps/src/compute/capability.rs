//! The operations of `compute`.

use std::sync::Arc;

use super::{
    Compute,
    batch::{Batch, Item, Pooled, Shape},
    host::Part,
    progress::Progress,
    stop::Stop,
    task::{Run, Task, answer},
};
use crate::{
    capability::{
        Call, Capability, Failure, Fields, Operation, Outcome, Value, unknown_operation, wrong,
    },
    net::BoxFuture,
};

const OPERATIONS: &[&str] = &["execute", "batch", "map", "tasks", "load", "unload"];

impl Capability for Compute {
    fn operations(&self) -> Vec<Operation> {
        vec![
            Operation::new("execute", "Runs a task; answers {result}").fields(&[
                ("task", "string", "The task's name; compute.tasks lists them"),
                ("data?", "", "What the task is given"),
            ]),
            Operation::new(
                "batch",
                "Runs tasks in parallel; answers {results}, an envelope for each, in order",
            )
            .fields(&[
                ("tasks", "array", "Objects {task, data}"),
                ("progress?", "", "A function that is told {done, total} now and then"),
            ]),
            Operation::new(
                "map",
                "Runs a task on each item in parallel; answers {results}, or the first failure",
            )
            .fields(&[
                ("task", "string", "The task's name"),
                ("items", "array", "What the task is given, one after the other"),
                ("chunk?", "integer", "How many items go to another client at once"),
                ("progress?", "", "A function that is told {done, total} now and then"),
            ]),
            Operation::new("tasks", "Lists the tasks there are; answers {tasks}").fields(&[]),
            Operation::new("load", "Compiles a WebAssembly module and makes it a task").fields(&[
                ("name", "string", "The task's name"),
                ("wasm", "", "The module's bytes"),
                ("memory_limit?", "integer", "Bytes of memory an instance may have"),
                ("fuel?", "integer", "Instructions, about, that a run may take"),
            ]),
            Operation::new("unload", "Takes a WebAssembly task away").fields(&[(
                "name",
                "string",
                "The task's name",
            )]),
        ]
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let begun = match &*call.operation {
            "execute" => self.execute(call),
            "batch" => self.batch(call),
            "map" => self.map(call),
            "tasks" => self.tasks(call).map(ready),
            "load" => self.load(call),
            "unload" => self.unload(call).map(ready),
            other => Err(unknown_operation(other, OPERATIONS)),
        };
        begun.unwrap_or_else(|failure| Box::pin(std::future::ready(Err(failure))))
    }
}

/// An operation that has begun, or was refused at once.
pub(super) type Begun = Result<BoxFuture<'static, Outcome>, Failure>;

fn ready(value: Value) -> BoxFuture<'static, Outcome> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Compute {
    fn execute(&self, mut call: Call) -> Begun {
        let item = self.item(std::mem::take(&mut call.payload))?;
        if let Task::Builtin(builtin) = &item.task
            && (builtin.tiny)(&item.data)
        {
            let stop = Stop::of(&call);
            let result = item.task.run(item.data, &Run { stop: &stop, workers: None })?;
            return Ok(ready(answer(result)));
        }
        self.begin(call, Shape::One, vec![Ok(item)], Vec::new())
    }

    fn batch(&self, mut call: Call) -> Begun {
        let mut fields = Fields::of(std::mem::take(&mut call.payload))?;
        let tasks = fields.list("tasks")?;
        let progress = fields.callback("progress")?;
        fields.done()?;
        let items = tasks.into_iter().enumerate().map(|(index, task)| {
            self.item(task).map_err(|failure| within(failure, &format!("tasks[{index}]")))
        });
        let items = items.collect();
        self.begin(call, Shape::Envelopes, items, progress.into_iter().collect())
    }

    fn map(&self, mut call: Call) -> Begun {
        let mut fields = Fields::of(std::mem::take(&mut call.payload))?;
        let task = self.registry().find(&fields.text("task")?)?;
        let items = fields.list("items")?;
        // Here the pool deals the items out one by one; it is said for other clients.
        if fields.count("chunk")? == Some(0) {
            return Err(Failure::field("chunk", "chunk is 0; it is a whole number from 1"));
        }
        let progress = fields.callback("progress")?;
        fields.done()?;
        let items = items.into_iter().map(|data| Ok(Item { task: task.clone(), data }));
        let items = items.collect();
        self.begin(call, Shape::Results, items, progress.into_iter().collect())
    }

    fn tasks(&self, call: Call) -> Result<Value, Failure> {
        Fields::of(call.payload)?.done()?;
        let tasks = self.registry().list().into_iter().map(|(name, task)| describe(&name, &task));
        Ok(Value::map([("tasks", tasks.collect::<Vec<_>>().into())]))
    }

    fn unload(&self, call: Call) -> Result<Value, Failure> {
        let mut fields = Fields::of(call.payload)?;
        let name = fields.text("name")?;
        fields.done()?;
        self.registry().remove(&name, |task| task.kind() == "wasm")?;
        Ok(Value::map([("unloaded", name.into())]))
    }

    /// `{task, data}`.
    fn item(&self, payload: Value) -> Result<Item, Failure> {
        if !matches!(payload, Value::Map(_)) {
            return Err(wrong("task", &payload, "an object {task, data}"));
        }
        let mut fields = Fields::of(payload)?;
        let task = self.registry().find(&fields.text("task")?)?;
        let data = fields.any("data").unwrap_or_default();
        fields.done()?;
        Ok(Item { task, data })
    }

    /// Queues the items; those that are failures already are answered so.
    pub(super) fn begin(
        &self,
        call: Call,
        shape: Shape,
        items: Vec<Result<Item, Failure>>,
        mut listeners: Vec<crate::capability::Callback>,
    ) -> Begun {
        let bytes = items.iter().flatten().map(|item| item.data.weight()).sum();
        let taken = self.room().take(items.len(), bytes)?;
        listeners.extend(call.progress.clone());
        let progress = Progress::new(listeners, items.len());
        let (mut pooled, mut hosted, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let items = items.into_iter().enumerate().map(|(index, item)| match item {
            Ok(item) => {
                match &item.task {
                    Task::Host(lane) => hosted.push((index, lane.clone())),
                    _ => pooled.push(index),
                }
                Some(item)
            }
            Err(failure) => {
                refused.push((index, failure));
                None
            }
        });
        let items: Vec<Option<Item>> = items.collect();
        // Before anything is queued: it may fail.
        let pool = if pooled.is_empty() { None } else { Some(self.pool()?) };
        let (batch, answer) = Batch::new(shape, items, Stop::of(&call), progress, taken);
        for (index, failure) in refused {
            batch.put(index, Err(failure), std::time::Duration::ZERO);
        }
        for (index, lane) in hosted {
            let part = Part { batch: batch.clone(), index, gone: answer.gone() };
            lane.submit(&call.caller, part);
        }
        if let Some(pool) = pool {
            pool.submit(&call.caller, Arc::new(Pooled::new(batch, pooled)));
        }
        Ok(Box::pin(answer))
    }
}

fn within(failure: Failure, place: &str) -> Failure {
    let field = match &failure.field {
        Some(field) => format!("{place}.{field}"),
        None => place.to_owned(),
    };
    Failure { field: Some(field), ..failure }
}

fn describe(name: &str, task: &Task) -> Value {
    let mut about = crate::capability::Map::default();
    about.push("name", name);
    about.push("kind", task.kind());
    match task {
        Task::Builtin(builtin) => about.push("summary", builtin.summary),
        Task::Host(lane) => {
            if !lane.summary().is_empty() {
                about.push("summary", lane.summary());
            }
            about.push("concurrency", lane.concurrency());
        }
        #[cfg(feature = "wasm")]
        Task::Wasm(module) => {
            about.push("memory_limit", module.memory_limit());
            about.push("fuel", module.fuel());
        }
        #[cfg(feature = "wasm")]
        Task::Loader(_) => {}
    }
    Value::Map(about)
}
