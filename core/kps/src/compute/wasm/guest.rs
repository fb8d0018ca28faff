//! One run of a module.

use bytes::Bytes;
use kps_proto::ErrorKind;
use wasmi::{
    Error, Instance, Linker, Memory, Module, Store, TypedFunc, TypedResumableCall, WasmParams,
    WasmResults,
};

use super::{Limits, State};
use crate::{capability::Failure, compute::task::Run};

/// Instructions between two looks at the clock: about a millisecond.
const SLICE: u64 = 500_000;

/// An instance under way.
pub(super) struct Guest<'a> {
    store: Store<State>,
    instance: Instance,
    memory: Memory,
    run: &'a Run<'a>,
    /// Of all its fuel, what it has not been given.
    fuel: Option<u64>,
}

impl<'a> Guest<'a> {
    pub(super) fn new(
        module: &Module,
        linker: &Linker<State>,
        limits: Limits,
        run: &'a Run<'a>,
    ) -> Result<Guest<'a>, Failure> {
        run.check()?;
        let mut store = Store::new(linker.engine(), State::new(&limits));
        store.limiter(|state| state);
        // Making it costs fuel, too; it is bounded by the module's size and limits.
        store.set_fuel(u64::MAX).map_err(|error| broken(&store, &error))?;
        let instance = linker
            .instantiate_and_start(&mut store, module)
            .map_err(|error| broken(&store, &error))?;
        store.set_fuel(0).map_err(|error| broken(&store, &error))?;
        let memory = instance.get_memory(&store, "memory").ok_or_else(no_memory)?;
        Ok(Guest { store, instance, memory, run, fuel: limits.fuel })
    }

    /// Hands the input over and gets the output.
    pub(super) fn run(&mut self, input: &[u8]) -> Result<Bytes, Failure> {
        // What modules made for WASI without a main function prepare themselves by.
        if let Ok(prepare) = self.instance.get_typed_func::<(), ()>(&self.store, "_initialize") {
            self.call(&prepare, ())?;
        }
        let length = u32::try_from(input.len()).map_err(|_| {
            let sentence = format!("{} bytes are more than a module can be given", input.len());
            Failure::new(ErrorKind::TooLarge, sentence)
        })?;
        let allocate = self.function::<u32, u32>("kps_alloc")?;
        let place = self.call(&allocate, length)?;
        if self.memory.write(&mut self.store, place as usize, input).is_err() {
            return Err(self.outside("kps_alloc", place, length));
        }
        let function = self.function::<(u32, u32), u64>("kps_run")?;
        let packed = self.call(&function, (place, length))?;
        let (place, length) = ((packed >> 32) as u32, packed as u32);
        let memory = self.memory.data(&self.store);
        let end = place as usize + length as usize;
        match memory.get(place as usize..end) {
            Some(output) => Ok(Bytes::copy_from_slice(output)),
            None => Err(self.outside("kps_run", place, length)),
        }
    }

    fn function<P: WasmParams, R: WasmResults>(
        &self,
        name: &str,
    ) -> Result<TypedFunc<P, R>, Failure> {
        let function = self.instance.get_typed_func(&self.store, name);
        function.map_err(|error| broken(&self.store, &error))
    }

    /// Calls a function of the module, slice by slice.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, Failure> {
        self.refuel(1)?;
        let mut call = function.call_resumable(&mut self.store, params);
        loop {
            let paused = match call {
                Ok(TypedResumableCall::Finished(result)) => return Ok(result),
                Ok(TypedResumableCall::OutOfFuel(paused)) => paused,
                // It calls nothing of ours.
                Ok(TypedResumableCall::HostTrap(trap)) => {
                    return Err(broken(&self.store, trap.host_error()));
                }
                Err(error) => return Err(broken(&self.store, &error)),
            };
            self.refuel(paused.required_fuel())?;
            call = paused.resume(&mut self.store);
        }
    }

    /// Fuel for the next slice, at least `wanted`.
    fn refuel(&mut self, wanted: u64) -> Result<(), Failure> {
        self.run.check()?;
        let left = self.store.get_fuel().unwrap_or(0);
        let given = SLICE.max(wanted).saturating_sub(left);
        let given = match &mut self.fuel {
            None => given,
            Some(fuel) if left + *fuel < wanted => {
                let sentence = "the module used all the fuel it may have";
                return Err(Failure::new(ErrorKind::QuotaExceeded, sentence));
            }
            Some(fuel) => {
                let given = given.min(*fuel);
                *fuel -= given;
                given
            }
        };
        self.store.set_fuel(left + given).map_err(|error| broken(&self.store, &error))
    }

    fn outside(&self, function: &str, place: u32, length: u32) -> Failure {
        let size = self.memory.data_size(&self.store);
        let text = format!(
            "{function} of the module answered {length} bytes at {place}, outside its memory of {size}"
        );
        let failed = || Failure::new(ErrorKind::HandlerFailed, text.clone());
        self.store.data().quota(&text).unwrap_or_else(failed)
    }
}

/// A module that trapped.
#[cold]
fn broken(store: &Store<State>, error: &Error) -> Failure {
    let text = error.to_string();
    let trapped = || Failure::new(ErrorKind::Internal, format!("the module trapped: {text}"));
    store.data().quota(&text).unwrap_or_else(trapped)
}

#[cold]
fn no_memory() -> Failure {
    Failure::new(ErrorKind::Internal, "the module has no memory")
}
