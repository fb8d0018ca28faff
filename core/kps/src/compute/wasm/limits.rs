//! What a module may have.

use kps_proto::ErrorKind;
use wasmi::ResourceLimiter;
use wasmi_core::LimiterError;

use crate::capability::{Failure, Fields};

/// What each run of a module may have.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Limits {
    /// Bytes of memory.
    pub(super) memory: usize,
    /// Instructions, about.
    pub(super) fuel: Option<u64>,
}

/// Unless something else is said.
const MEMORY: usize = 64 << 20;
/// What can be said.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 1 << 30;
/// Elements of its tables: functions that are called through pointers.
const ELEMENTS: usize = 1_000_000;

impl Limits {
    /// The fields `memory_limit` and `fuel`.
    pub(super) fn read(fields: &mut Fields) -> Result<Limits, Failure> {
        let memory = match fields.count("memory_limit")? {
            None => MEMORY,
            Some(bytes @ LEAST..=MOST) => bytes as usize,
            Some(bytes) => {
                let sentence = format!("memory_limit is {bytes}; it is {LEAST} to {MOST} bytes");
                return Err(Failure::field("memory_limit", sentence));
            }
        };
        let fuel = fields.count("fuel")?;
        if fuel == Some(0) {
            return Err(Failure::field("fuel", "fuel is 0; it is a whole number from 1"));
        }
        Ok(Limits { memory, fuel })
    }
}

/// What an instance knows of its limits.
#[derive(Debug)]
pub(super) struct State {
    memory: usize,
    /// It asked for more and did not get it.
    denied: bool,
}

impl State {
    pub(super) fn new(limits: &Limits) -> State {
        State { memory: limits.memory, denied: false }
    }

    /// `quota_exceeded` if that is what a failure comes from.
    pub(super) fn quota(&self, text: &str) -> Option<Failure> {
        self.denied.then(|| {
            let sentence = format!(
                "the module wanted more than the {} bytes of memory it may have: {text}",
                self.memory
            );
            Failure::new(ErrorKind::QuotaExceeded, sentence)
        })
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        _: usize,
        wanted: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let fits = wanted <= self.memory;
        self.denied |= !fits;
        Ok(fits && maximum.is_none_or(|maximum| wanted <= maximum))
    }

    fn table_growing(
        &mut self,
        _: usize,
        wanted: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let fits = wanted <= ELEMENTS;
        self.denied |= !fits;
        Ok(fits && maximum.is_none_or(|maximum| wanted <= maximum))
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        1
    }
}
