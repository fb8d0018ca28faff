//! The names of tasks.

use std::{collections::BTreeMap, sync::Arc};

use kps_proto::ErrorKind;
use parking_lot::RwLock;

use super::{builtin::BUILTINS, task::Task};
use crate::capability::Failure;

/// Characters of a name at most.
const LONGEST: usize = 128;

/// Tasks by their names.
#[derive(Debug)]
pub(super) struct Registry(RwLock<BTreeMap<Arc<str>, Task>>);

/// More than these are not taken: each is a compiled module or a program's function.
const MOST: usize = 4096;

impl Registry {
    /// With the built-in ones.
    pub(super) fn new() -> Registry {
        let builtins = BUILTINS.iter().map(|task| (task.name.into(), Task::Builtin(task)));
        Registry(RwLock::new(builtins.collect()))
    }

    /// The task of this name.
    ///
    /// # Errors
    /// `not_found`, with the names there are.
    pub(super) fn find(&self, name: &str) -> Result<Task, Failure> {
        let tasks = self.0.read();
        tasks.get(name).cloned().ok_or_else(|| unknown(name, &tasks))
    }

    /// Adds a task.
    ///
    /// # Errors
    /// `conflict`: the name is taken; `invalid_payload`: it is none; `quota_exceeded`: there are too
    /// many.
    pub(super) fn add(&self, name: &str, task: Task) -> Result<(), Failure> {
        self.free(name)?;
        let mut tasks = self.0.write();
        // Looked up again: others may have been faster.
        if tasks.contains_key(name) {
            return Err(taken(name));
        }
        tasks.insert(name.into(), task);
        Ok(())
    }

    /// That a task of this name could be added.
    pub(super) fn free(&self, name: &str) -> Result<(), Failure> {
        let fits = !name.is_empty()
            && name.len() <= LONGEST
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !fits {
            let sentence = format!(
                "{name:?} is no name for a task: 1 to {LONGEST} letters, digits, _, - and ."
            );
            return Err(Failure::field("name", sentence));
        }
        let tasks = self.0.read();
        if tasks.contains_key(name) {
            return Err(taken(name));
        }
        if tasks.len() >= MOST {
            let sentence = format!("there are {MOST} tasks already; unload some");
            return Err(Failure::new(ErrorKind::QuotaExceeded, sentence));
        }
        Ok(())
    }

    /// Takes the task away, if it is one that `may` be.
    ///
    /// # Errors
    /// `not_found`; `conflict`: it is of another kind.
    pub(super) fn remove(&self, name: &str, may: fn(&Task) -> bool) -> Result<(), Failure> {
        let mut tasks = self.0.write();
        match tasks.get(name) {
            Some(task) if may(task) => {
                let task = tasks.remove(name);
                // Its own code may run when it is dropped.
                drop(tasks);
                drop(task);
                Ok(())
            }
            Some(task) => {
                let kind = task.kind();
                let sentence = format!("the task {name:?} is a {kind} task: it stays");
                Err(Failure::new(ErrorKind::Conflict, sentence))
            }
            None => Err(unknown(name, &tasks)),
        }
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> Vec<(Arc<str>, Task)> {
        self.0.read().iter().map(|(name, task)| (name.clone(), task.clone())).collect()
    }
}

fn taken(name: &str) -> Failure {
    let sentence = format!("there is a task {name:?} already");
    Failure { field: Some("name".into()), ..Failure::new(ErrorKind::Conflict, sentence) }
}

/// Names listed in a sentence at most.
const LISTED: usize = 50;

fn unknown(name: &str, tasks: &BTreeMap<Arc<str>, Task>) -> Failure {
    let known: Vec<_> = tasks.keys().take(LISTED).map(|name| &**name).collect();
    let more = if tasks.len() > LISTED { ", …" } else { "" };
    let sentence = format!("there is no task {name:?}; there are {}{more}", known.join(", "));
    Failure { field: Some("task".into()), ..Failure::new(ErrorKind::NotFound, sentence) }
}
