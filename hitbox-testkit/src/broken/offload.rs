//! Background work as one would start it first: every task is spawned, and nothing is ever refused.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use hitbox_core::{Offload, Refusal, Refused, Subject, Task, TaskKind};

/// Spawns whatever it is given.
#[derive(Debug, Default)]
pub struct SpawnsEverything;

impl Offload for SpawnsEverything {
    fn register(&self, task: Task) -> Result<(), Refused> {
        tokio::spawn(task.work);
        Ok(())
    }
}

/// Refuses duplicates, and frees a subject only when its task ends well.
#[derive(Clone, Debug, Default)]
pub struct LeaksSubjects(Arc<Mutex<HashSet<(TaskKind, Subject)>>>);

impl Offload for LeaksSubjects {
    fn register(&self, task: Task) -> Result<(), Refused> {
        let Some(subject) = task.subject.clone() else {
            tokio::spawn(task.work);
            return Ok(());
        };
        let entry = (task.kind, subject);
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.clone()) {
            return Err(Refused { task, why: Refusal::Duplicate });
        }
        let known = self.0.clone();
        tokio::spawn(async move {
            task.work.await;
            known.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry);
        });
        Ok(())
    }
}
