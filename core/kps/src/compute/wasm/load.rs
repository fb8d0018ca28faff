//! `compute.load`.

use std::sync::Arc;

use super::{Limits, Module};
use crate::{
    capability::{Call, Failure, Fields, Outcome, Value, missing},
    compute::{
        Compute,
        batch::{Item, Shape},
        capability::Begun,
        task::{Task, guarded},
    },
};

/// The compilation of a module, which is work for the pool like any other.
#[derive(Debug)]
pub(in super::super) struct Loader {
    compute: Compute,
    name: String,
    limits: Limits,
}

impl Compute {
    pub(in super::super) fn load(&self, mut call: Call) -> Begun {
        let mut fields = Fields::of(std::mem::take(&mut call.payload))?;
        let name = fields.text("name")?;
        let wasm = fields.bytes("wasm")?.ok_or_else(|| missing("wasm"))?;
        let limits = Limits::read(&mut fields)?;
        fields.done()?;
        self.registry().free(&name)?;
        let task = Task::Loader(Arc::new(Loader { compute: self.clone(), name, limits }));
        self.begin(call, Shape::Bare, vec![Ok(Item { task, data: wasm.into() })], Vec::new())
    }
}

impl Loader {
    /// Compiles it, and makes it a task.
    pub(in super::super) fn run(&self, data: Value) -> Outcome {
        let Value::Bytes(wasm) = data else { return Err(missing("wasm")) };
        let (name, limits) = (&self.name, self.limits);
        guarded("the compiler of WebAssembly", || {
            self.add(&wasm).map(|()| {
                Value::map([
                    ("loaded", (&**name).into()),
                    ("memory_limit", limits.memory.into()),
                    ("fuel", limits.fuel.into()),
                ])
            })
        })
    }

    fn add(&self, wasm: &[u8]) -> Result<(), Failure> {
        let module = Module::new(wasm, self.limits)?;
        self.compute.registry().add(&self.name, Task::Wasm(Arc::new(module)))
    }
}
