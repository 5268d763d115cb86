//! The behaviour suite: one check per id of the acceptance list, each with the broken subjects that it
//! must reject.
//!
//! A check runs against a [`Subject`] with a manual clock. It returns what is wrong instead of panicking,
//! so that rejecting a broken backend is an ordinary result.

mod admission;
mod compose;
mod errors;
mod facts;
mod invalidate;
mod key;
mod refill;
mod stream;
mod support;
mod value;

use std::time::Duration;

use hitbox_core::BoxFuture;

use crate::broken::{self, BodyDefect, Defect, Lapse};
use crate::{Subject, Subjects};

pub use key::reserved_keys_are_out_of_reach;
pub use support::{Item, Verdict};

/// A check.
pub type Check = for<'a> fn(&'a Subject) -> BoxFuture<'a, Verdict>;

/// One acceptance sentence.
pub struct Behaviour {
    /// Its id, such as `value_01`.
    pub id: &'static str,
    /// The name of its check, which is that of its test.
    pub name: &'static str,
    /// What shows it.
    pub check: Check,
    /// What must be rejected.
    pub rejects: fn() -> Vec<Subject>,
}

/// No check takes longer against a backend that works.
const LIMIT: Duration = Duration::from_secs(20);
/// A broken backend that hangs is rejected after so long.
const PATIENCE: Duration = Duration::from_secs(2);

impl Behaviour {
    /// Runs the check, unless the subject does otherwise by design.
    ///
    /// # Errors
    /// What is wrong with the subject.
    pub async fn run(&self, subject: &Subject) -> Verdict {
        if !subject.is_held_to(self.id) {
            return Ok(());
        }
        within(LIMIT, (self.check)(subject)).await
    }

    /// The broken subjects that the check does not reject.
    pub async fn accepted_wrongly(&self) -> Vec<String> {
        let mut accepted = Vec::new();
        for subject in (self.rejects)() {
            if within(PATIENCE, (self.check)(&subject)).await.is_ok() {
                accepted.push(subject.name);
            }
        }
        accepted
    }
}

async fn within(limit: Duration, check: BoxFuture<'_, Verdict>) -> Verdict {
    tokio::time::timeout(limit, check).await.unwrap_or_else(|_| Err(format!("no end after {limit:?}")))
}

/// What `suite_tests!` does for one check: runs it against all of these subjects.
///
/// # Panics
/// If the check fails for one of them, or is not known.
#[doc(hidden)]
pub fn assert_behaviour(name: &str, subjects: impl FnOnce() -> Subjects) {
    let behaviour = BEHAVIOURS.iter().find(|behaviour| behaviour.name == name).expect("a check of that name");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut failures = Vec::new();
        for subject in subjects().0 {
            if let Err(what) = behaviour.run(&subject).await {
                failures.push(format!("{}: {what}", subject.name));
            }
        }
        assert!(failures.is_empty(), "{} expressions fail {name}:\n{}", failures.len(), failures.join("\n"));
    });
}

/// `$d` is a dollar sign, for the macro that is made here.
macro_rules! behaviours {
    ($d:tt $($id:literal $module:ident::$check:ident rejects [$($broken:expr),* $(,)?];)*) => {
        /// Every check of the suite.
        pub static BEHAVIOURS: &[Behaviour] = &[$(Behaviour {
            id: $id,
            name: stringify!($check),
            check: |subject| Box::pin($module::$check(subject)),
            rejects: || vec![$($broken),*],
        }),*];

        /// Makes a test of every check of the suite, named after it, for what the expression gives: a
        /// [`Factory`](crate::Factory), which is checked alone and in compositions, a [`Subject`](crate::Subject), or a
        /// list of subjects.
        ///
        /// ```
        /// # fn main() {}
        /// use hitbox_testkit::{MemoryBackend, World, factory};
        /// hitbox_testkit::suite_tests! { factory(|world: World| async move { MemoryBackend::new(world.shared_clock()) }) }
        /// ```
        #[macro_export]
        macro_rules! suite_tests {
            ($d subjects:expr) => {
                $(#[test]
                fn $check() {
                    $d crate::suite::assert_behaviour(stringify!($check), || $d subjects.into());
                })*
            };
        }
    };
}

behaviours! {
    $
    "value_01" value::value_01_any_value_round_trips rejects [
        broken::alone(Defect::DropsLargeValues), broken::alone(Defect::LosesWrites)];
    "value_02" value::value_02_instants_read_back_equal rejects [
        broken::alone(Defect::DropsInstants), broken::upper(Defect::DropsInstants)];
    "value_03" value::value_03_lives_under_a_second_are_honoured rejects [broken::alone(Defect::RoundsToSeconds)];
    "value_04" value::value_04_overwriting_replaces_everything rejects [broken::alone(Defect::KeepsOldLifetime)];
    "value_05" value::value_05_state_follows_the_clock rejects [
        broken::alone(Defect::ServesExpired), broken::alone(Defect::RoundsToSeconds)];
    "value_06" value::value_06_a_useless_copy_is_a_miss_of_its_layer rejects [
        broken::upper(Defect::FailsOnExpired), broken::upper(Defect::ServesExpired)];
    "value_07" value::value_07_a_useless_copy_never_beats_a_usable_one rejects [
        broken::upper(Defect::ServesExpired)];
    "value_08" value::value_08_layers_have_their_own_codecs rejects [broken::upper(Defect::MistakesFormat)];
    "value_09" value::value_09_encoded_and_decoded_once rejects [broken::alone(Defect::EncodesNeedlessly)];
    "value_10" value::value_10_hits_share_one_allocation rejects [broken::alone(Defect::CopiesPayload)];
    "value_11" value::value_11_other_schemas_are_misses rejects [broken::alone(Defect::IgnoresSchema)];
    "key_01" key::key_01_different_keys_never_collide rejects [broken::alone(Defect::JoinsParts)];
    "key_03" key::key_03_namespaces_are_apart rejects [broken::alone(Defect::IgnoresNamespace)];
    "key_04" key::key_04_long_keys_work_or_are_refused rejects [broken::alone(Defect::CutsKeys)];
    "key_05" key::key_05_reserved_keys_are_out_of_reach rejects [broken::alone(Defect::IgnoresReservation)];
    "compose_01" compose::compose_01_any_two_backends_compose rejects [
        broken::lower(Defect::LosesWrites), broken::upper(Defect::LosesRefills)];
    "compose_02" compose::compose_02_sequential_read rejects [
        broken::with_setup("asks both", |s| with_read(s, broken::AsksBoth))];
    "compose_03" compose::compose_03_race_read rejects [
        broken::with_setup("first answer", |s| with_read(s, broken::FirstAnswer))];
    "compose_04" compose::compose_04_parallel_read rejects [
        broken::with_setup("prefers L1", |s| with_read(s, broken::PrefersL1))];
    "compose_05" compose::compose_05_one_table_for_all_policies rejects [
        broken::with_setup("swallows errors", |s| with_read(s, broken::SwallowsErrors)), broken::naive()];
    "compose_06" compose::compose_06_write_policies rejects [
        broken::with_setup("goes on", |s| with_write(s, broken::GoesOn))];
    "compose_07" compose::compose_07_durable_first rejects [
        broken::with_setup("L1 first", |s| with_write(s, broken::L1First))];
    "compose_08" compose::compose_08_required_and_optional rejects [
        broken::with_setup("forgets requirements", |s| crate::Setup { required: Default::default(), ..s })];
    "compose_09" compose::compose_09_a_failed_layer_is_dirty rejects [
        broken::upper(Defect::ServesDirty), broken::naive()];
    "compose_10" compose::compose_10_delete_counts_and_reports rejects [
        broken::upper(Defect::MiscountsDeletes), broken::naive()];
    "compose_11" compose::compose_11_receipt_per_leaf rejects [broken::upper(Defect::OmitsReceipt)];
    "compose_12" compose::compose_12_late_writes_never_win rejects [
        broken::lower(Defect::IgnoresOrder)];
    "compose_13" compose::compose_13_provenance rejects [
        broken::upper(Defect::ForgetsPath), broken::lower(Defect::ForgetsPath)];
    "compose_14" compose::compose_14_batches_keep_order rejects [broken::upper(Defect::ReversesBatches)];
    "compose_15" compose::compose_15_custom_policies rejects [
        broken::with_setup("never asks", |s| with_read(s, broken::NeverAsks))];
    "refill_01" refill::refill_01_when_it_happens rejects [broken::upper(Defect::LosesRefills), broken::naive()];
    "refill_02" refill::refill_02_keeps_the_instants_of_its_source rejects [
        broken::upper(Defect::RestartsLifetime), broken::naive()];
    "refill_03" refill::refill_03_every_level_is_filled rejects [
        broken::upper(Defect::LosesRefills), broken::naive()];
    "refill_04" refill::refill_04_the_reader_never_waits rejects [
        broken::with_setup("awaits", |s| with_refill(s, hitbox_backend::RefillPolicy::Awaited)), broken::naive()];
    "refill_05" refill::refill_05_a_failed_refill_changes_nothing rejects [broken::naive()];
    "refill_06" refill::refill_06_never_resurrects rejects [
        broken::upper(Defect::IgnoresPermits), broken::naive()];
    "refill_07" refill::refill_07_simultaneous_hits_fill_once rejects [broken::upper(Defect::IgnoresPermits)];
    "value_12" facts::value_12_what_is_too_large_is_refused rejects [
        broken::lapsed_alone(Lapse::TakesAnything)];
    "compose_16" admission::compose_16_a_layer_may_be_write_disabled rejects [
        broken::upper(Defect::KeepsRemoved)];
    "refill_09" admission::refill_09_admission_decides_what_is_filled rejects [
        broken::upper(Defect::KeepsRemoved)];
    "invalidate_01" invalidate::invalidate_01_by_every_name rejects [
        broken::lapsed_alone(Lapse::IgnoresInvalidation), broken::lapsed_alone(Lapse::MatchesText)];
    "invalidate_02" invalidate::invalidate_02_takes_no_time_that_grows rejects [
        broken::lapsed_alone(Lapse::RemovesEach), broken::lapsed_lower(Lapse::RemovesEach)];
    "invalidate_03" invalidate::invalidate_03_reaches_what_only_lower_layers_have rejects [
        broken::lapsed_lower(Lapse::IgnoresInvalidation)];
    "invalidate_04" invalidate::invalidate_04_what_began_before_is_not_installed rejects [
        broken::lapsed_alone(Lapse::StoresLate), broken::upper(Defect::IgnoresPermits)];
    "invalidate_05" invalidate::invalidate_05_counts_are_distinct_keys rejects [
        broken::lapsed_alone(Lapse::CountsAll)];
    "invalidate_06" invalidate::invalidate_06_a_layer_that_did_not_record_it_is_named rejects [broken::naive()];
    "invalidate_07" invalidate::invalidate_07_an_overwrite_takes_tags_away rejects [
        broken::lapsed_alone(Lapse::KeepsScopes)];
    "invalidate_08" invalidate::invalidate_08_versions_guard_writes rejects [
        broken::lapsed_alone(Lapse::IgnoresVersions), broken::lapsed_lower(Lapse::IgnoresVersions)];
    "invalidate_10" invalidate::invalidate_10_eviction_is_demotion rejects [broken::naive()];
    "presence_01" facts::presence_01_is_three_valued_and_agrees_with_get rejects [
        broken::lapsed_alone(Lapse::TellsOfExpired)];
    "stats_01" facts::stats_01_a_snapshot_counts_every_leaf rejects [
        broken::lapsed_alone(Lapse::CountsNothing)];
    "stats_03" facts::stats_03_hits_of_layers_add_up rejects [broken::lapsed_lower(Lapse::CountsTwice)];
    "stats_05" facts::stats_05_lengths_name_their_leaf rejects [broken::lapsed_alone(Lapse::CountsExpired)];
    "stream_01" stream::stream_01_chunks_become_one_body rejects [
        broken::bodies(BodyDefect::LosesLastChunk), broken::bodies(BodyDefect::ShowsUnfinished)];
    "stream_02" stream::stream_02_layers_fail_by_themselves rejects [
        broken::composed_bodies(BodyDefect::FailsWithALayer)];
    "stream_03" stream::stream_03_writers_are_followed rejects [broken::bodies(BodyDefect::MistakesWritten)];
    "stream_04" stream::stream_04_followers_have_one_writer rejects [
        broken::bodies(BodyDefect::MixesWriters), broken::bodies(BodyDefect::Renumbers)];
    "stream_05" stream::stream_05_ranges rejects [
        broken::bodies(BodyDefect::IgnoresEnds), broken::bodies(BodyDefect::TakesAnyRange)];
    "stream_06" stream::stream_06_metadata_apart_from_the_body rejects [
        broken::bodies(BodyDefect::CreatesWithMetadata)];
    "stream_07" stream::stream_07_what_comes_in_between_wins rejects [
        broken::bodies(BodyDefect::StoresLate), broken::bodies(BodyDefect::PurgesAnyGeneration)];
    "stream_08" stream::stream_08_evictions_and_purges rejects [
        broken::composed_bodies(BodyDefect::EvictsFromAll)];
    "stream_09" stream::stream_09_sizes_agree rejects [broken::bodies(BodyDefect::ForgetsMetadata)];
    "errors_01" errors::errors_01_kinds_paths_and_sources rejects [
        broken::upper(Defect::AnonymousErrors), broken::alone(Defect::AnonymousErrors)];
    "errors_02" errors::errors_02_a_hanging_layer_is_a_timeout rejects [broken::naive()];
}

fn with_read(mut setup: crate::Setup, policy: impl hitbox_backend::policy::ReadPolicy) -> crate::Setup {
    setup.policy = setup.policy.read(policy);
    setup
}

fn with_write(mut setup: crate::Setup, policy: impl hitbox_backend::policy::WritePolicy) -> crate::Setup {
    setup.policy = setup.policy.write(policy);
    setup
}

fn with_refill(mut setup: crate::Setup, policy: hitbox_backend::RefillPolicy) -> crate::Setup {
    setup.policy = setup.policy.refill(policy);
    setup
}
