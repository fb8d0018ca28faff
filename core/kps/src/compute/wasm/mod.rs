//! Sandboxed tasks: WebAssembly modules, interpreted. What a module exports and gets is in
//! [`manual::compute`](crate::manual::compute).
//!
//! Each run has an instance of its own, so nothing of one run is seen by another. A module imports
//! nothing, so that all it can reach is its own memory, of which it may have so much; what it executes
//! is counted, and every half a million instructions it is asked whether anybody still waits.

mod answer;
mod guest;
mod limits;
mod load;

use kps_proto::ErrorKind;
use wasmi::{Config, Engine, ExternType, Linker, ValType};

pub(super) use self::load::Loader;
use self::{
    answer::Interface,
    guest::Guest,
    limits::{Limits, State},
};
use super::task::Run;
use crate::capability::{Failure, Outcome, Value};

/// A compiled module.
pub(super) struct Module {
    module: wasmi::Module,
    linker: Linker<State>,
    interface: Interface,
    limits: Limits,
}

/// Bytes of a module at most.
const LARGEST: usize = 32 << 20;

/// Bytes of the stack of a module's functions, and calls within calls. The stack is on the heap: a module
/// that overflows it fails, and nothing else.
const STACK: usize = 1 << 20;
const DEPTH: usize = 10_000;

impl Module {
    /// Compiles a module.
    ///
    /// # Errors
    /// `invalid_payload` because of `wasm`: it is no module, wants to import, or does not export what it
    /// should; `too_large`; `quota_exceeded`: it begins with more memory than it may have.
    pub(super) fn new(wasm: &[u8], limits: Limits) -> Result<Module, Failure> {
        if wasm.len() > LARGEST {
            let sentence = format!("the module has {} bytes; at most {LARGEST}", wasm.len());
            return Err(refused(ErrorKind::TooLarge, sentence));
        }
        let engine = Engine::new(&config());
        let module = wasmi::Module::new(&engine, wasm)
            .map_err(|error| invalid(format!("wasm is no module that can run here: {error}")))?;
        if let Some(import) = module.imports().next() {
            let (from, name) = (import.module(), import.name());
            let sentence = format!(
                "the module imports {from}.{name}; modules get nothing from outside, so they import nothing"
            );
            return Err(invalid(sentence));
        }
        let interface = exports(&module, &limits)?;
        Ok(Module { linker: Linker::new(&engine), module, interface, limits })
    }

    /// Runs it once, in an instance of its own.
    pub(super) fn run(&self, data: Value, run: &Run<'_>) -> Outcome {
        let input = self.interface.input(data)?;
        let mut guest = Guest::new(&self.module, &self.linker, self.limits, run)?;
        let output = guest.run(&input)?;
        self.interface.output(output)
    }

    pub(super) fn memory_limit(&self) -> usize {
        self.limits.memory
    }

    pub(super) fn fuel(&self) -> Option<u64> {
        self.limits.fuel
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .set_max_stack_height(STACK)
        .set_max_recursion_depth(DEPTH)
        // It would run while the instance is made, where nobody asks.
        .allow_start_fn(false)
        .ignore_custom_sections(true)
        .wasm_multi_memory(false);
    config
}

/// Checks what it exports.
fn exports(module: &wasmi::Module, limits: &Limits) -> Result<Interface, Failure> {
    let missing = |what: &str| {
        invalid(format!(
            "the module does not export {what}: see the manual, \"The guest interface\""
        ))
    };
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_64() => {
            let (first, most) = (memory.minimum().saturating_mul(64 << 10), limits.memory);
            if first > most as u64 {
                let sentence =
                    format!("the module begins with {first} bytes of memory; it may have {most}");
                return Err(refused(ErrorKind::QuotaExceeded, sentence));
            }
        }
        _ => return Err(missing("a 32-bit memory called \"memory\"")),
    }
    let is_function = |name, params: &[ValType], results: &[ValType]| {
        matches!(module.get_export(name), Some(ExternType::Func(kind))
            if kind.params() == params && kind.results() == results)
    };
    if !is_function("kps_alloc", &[ValType::I32], &[ValType::I32]) {
        return Err(missing("a function kps_alloc(i32) -> i32"));
    }
    if !is_function("kps_run", &[ValType::I32, ValType::I32], &[ValType::I64]) {
        return Err(missing("a function kps_run(i32, i32) -> i64"));
    }
    Ok(match module.get_export("kps_bytes") {
        Some(_) => Interface::Bytes,
        None => Interface::Json,
    })
}

#[cold]
fn invalid(message: String) -> Failure {
    Failure::field("wasm", message)
}

#[cold]
fn refused(kind: ErrorKind, message: String) -> Failure {
    Failure { field: Some("wasm".into()), ..Failure::new(kind, message) }
}
