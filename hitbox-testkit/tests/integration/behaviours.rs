//! Every check of the suite over every expression: one test per id, named after it.

use hitbox_testkit::suite::BEHAVIOURS;

hitbox_testkit::suite_tests! { crate::common::subjects() }

/// The tests that are made here, so that none goes missing.
macro_rules! made_here {
    ($($name:ident)*) => {
        #[test]
        fn every_check_has_a_test() {
            // Each name is that of a function.
            let _: &[fn()] = &[$($name),*];
            let made = [$(stringify!($name)),*];
            let known: Vec<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).collect();
            assert_eq!(made[..], known[..]);
        }
    };
}

made_here! {
    value_01_any_value_round_trips
    value_02_instants_read_back_equal
    value_03_lives_under_a_second_are_honoured
    value_04_overwriting_replaces_everything
    value_05_state_follows_the_clock
    value_06_a_useless_copy_is_a_miss_of_its_layer
    value_07_a_useless_copy_never_beats_a_usable_one
    value_08_layers_have_their_own_codecs
    value_09_encoded_and_decoded_once
    value_10_hits_share_one_allocation
    value_11_other_schemas_are_misses
    key_01_different_keys_never_collide
    key_03_namespaces_are_apart
    key_04_long_keys_work_or_are_refused
    key_05_reserved_keys_are_out_of_reach
    compose_01_any_two_backends_compose
    compose_02_sequential_read
    compose_03_race_read
    compose_04_parallel_read
    compose_05_one_table_for_all_policies
    compose_06_write_policies
    compose_07_durable_first
    compose_08_required_and_optional
    compose_09_a_failed_layer_is_dirty
    compose_10_delete_counts_and_reports
    compose_11_receipt_per_leaf
    compose_12_late_writes_never_win
    compose_13_provenance
    compose_14_batches_keep_order
    compose_15_custom_policies
    refill_01_when_it_happens
    refill_02_keeps_the_instants_of_its_source
    refill_03_every_level_is_filled
    refill_04_the_reader_never_waits
    refill_05_a_failed_refill_changes_nothing
    refill_06_never_resurrects
    refill_07_simultaneous_hits_fill_once
    value_12_what_is_too_large_is_refused
    compose_16_a_layer_may_be_write_disabled
    refill_09_admission_decides_what_is_filled
    invalidate_01_by_every_name
    invalidate_02_takes_no_time_that_grows
    invalidate_03_reaches_what_only_lower_layers_have
    invalidate_04_what_began_before_is_not_installed
    invalidate_05_counts_are_distinct_keys
    invalidate_06_a_layer_that_did_not_record_it_is_named
    invalidate_07_an_overwrite_takes_tags_away
    invalidate_08_versions_guard_writes
    invalidate_10_eviction_is_demotion
    presence_01_is_three_valued_and_agrees_with_get
    stats_01_a_snapshot_counts_every_leaf
    stats_03_hits_of_layers_add_up
    stats_05_lengths_name_their_leaf
    stream_01_chunks_become_one_body
    stream_02_layers_fail_by_themselves
    stream_03_writers_are_followed
    stream_04_followers_have_one_writer
    stream_05_ranges
    stream_06_metadata_apart_from_the_body
    stream_07_what_comes_in_between_wins
    stream_08_evictions_and_purges
    stream_09_sizes_agree
    errors_01_kinds_paths_and_sources
    errors_02_a_hanging_layer_is_a_timeout
}
