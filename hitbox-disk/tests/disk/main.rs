//! What only a store on disk has to show. The program starts itself again as a writer that is killed, so
//! it is its own test harness: `writer STORE FOLDER SEED WORKLOAD` is the writer, all else are tests.

mod bound;
mod cases;
mod damage;
mod kill;
mod store;
mod threads;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// What a check says: nothing, or what is wrong.
type Verdict = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "writer") {
        return kill::write_until_killed(&arguments[2..]);
    }
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($module:ident::$name:ident)*) => {
            $(trials.push(Trial::test(stringify!($name), || Ok($module::$name()?)));)*
        };
    }
    trials! {
        kill::disk_01_returned_writes_survive_kill_9
        kill::disk_01_rejects_write_behind
        kill::disk_02_killed_writers_leave_old_new_or_nothing
        kill::disk_02_rejects_writing_in_place
        damage::disk_03_damage_is_a_miss_and_heals
        damage::disk_03_rejects_files_without_checksums
        bound::disk_04_stays_within_its_bound
        bound::disk_04_rejects_files_without_a_bound
        threads::disk_05_no_blocking_on_async_threads
        threads::disk_05_rejects_io_on_the_callers_thread
        cases::case_f03_what_is_removed_is_made_again
        cases::case_f03_removed_under_writers
        cases::case_f03_a_lock_that_is_removed_at_once_is_made_again
        cases::case_f03_two_stores_never_share_a_folder
        cases::case_f04_nobody_else_may_read_or_write
        cases::case_f04_what_others_own_is_refused
        cases::case_f04_links_are_never_followed
        cases::case_f05_what_is_no_file_is_no_object
        cases::case_f05_what_is_no_file_beside_objects
        cases::case_f07_keys_with_one_digest_have_files_of_their_own
        cases::case_f08_folders_are_synchronised_too
        cases::case_f20_opens_again_once_the_last_handle_is_gone
        cases::case_f20_waits_for_handles_of_background_work
        cases::case_f20_waits_for_what_was_given_up_on_no_thread
        cases::case_f21_tags_of_live_entries_are_not_evicted
        cases::case_f22_each_key_is_listed_once_under_hits
        cases::case_f23_small_values_stay_within_the_bound
        cases::case_f28_a_full_file_system_puts_others_out
        cases::case_f28_what_cannot_be_removed_is_left
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Turns a check that must fail into one that succeeds.
fn rejected(verdict: Verdict) -> Verdict {
    match verdict {
        Ok(()) => Err("the broken store is accepted".to_owned()),
        Err(why) => {
            eprintln!("rejected: {why}");
            Ok(())
        }
    }
}
