//! What the series are, in a sentence each.

/// Series of layers, of compositions and of the offload.
const HELP: [(&str, &str); 41] = [
    ("hitbox_backend_read_total", "Reads of a layer."),
    ("hitbox_backend_write_total", "Writes and refills of a layer."),
    ("hitbox_backend_remove_total", "Removals of a layer."),
    ("hitbox_backend_hit_total", "Reads of a layer that were answered with a fresh copy."),
    ("hitbox_backend_miss_total", "Reads of a layer that found no usable copy."),
    ("hitbox_backend_stale_total", "Reads of a layer that were answered with a stale copy."),
    ("hitbox_backend_read_bytes_total", "Bytes handed out by a layer of bytes."),
    ("hitbox_backend_write_bytes_total", "Bytes taken in by a layer of bytes."),
    ("hitbox_backend_unusable_total", "Copies that a layer had and could not serve, by reason."),
    ("hitbox_backend_unserved_total", "Copies that a layer had and another layer's was served instead."),
    ("hitbox_backend_version_mismatch_total", "Conditional writes that met an equal or newer version."),
    ("hitbox_backend_not_admitted_total", "Values that a layer left out by its rule of admission."),
    ("hitbox_backend_lookup_total", "Looks whether an entry is there, by what they found."),
    ("hitbox_filter_answered_total", "Reads that a negative filter answered."),
    ("hitbox_filter_false_positive_total", "Reads that a negative filter let pass in vain."),
    ("hitbox_backend_compress_input_bytes_total", "Bytes before compression."),
    ("hitbox_backend_compress_output_bytes_total", "Bytes after compression."),
    ("hitbox_backend_compress_skipped_total", "Values that were not compressed."),
    ("hitbox_invalidation_total", "Tags, dependencies and namespaces that were invalidated."),
    ("hitbox_refill_installed_total", "Copies that were stored from a lower layer."),
    ("hitbox_refill_superseded_total", "Refills that were given up since something was written meanwhile."),
    ("hitbox_refill_registered_total", "Refills that were begun in the background."),
    ("hitbox_refill_failed_total", "Refills that an upper layer did not take."),
    ("hitbox_refill_refused_total", "Refills for which there was no room in the background."),
    ("hitbox_backend_read_errors_total", "Reads of a layer that failed, by kind of the error."),
    (
        "hitbox_backend_write_errors_total",
        "Writes of a layer that failed or were refused, by kind of the error.",
    ),
    ("hitbox_backend_remove_errors_total", "Removals of a layer that failed, by kind of the error."),
    ("hitbox_backend_read_duration_seconds", "How long reads of a layer took that had to wait."),
    ("hitbox_backend_write_duration_seconds", "How long writes of a layer took."),
    ("hitbox_backend_remove_duration_seconds", "How long removals of a layer took."),
    ("hitbox_backend_serialize_duration_seconds", "How long values took to be encoded."),
    ("hitbox_backend_deserialize_duration_seconds", "How long values took to be decoded."),
    ("hitbox_backend_compress_duration_seconds", "How long values took to be compressed."),
    ("hitbox_backend_decompress_duration_seconds", "How long values took to be decompressed."),
    ("hitbox_offload_depth", "Background tasks that run or wait."),
    ("hitbox_offload_registered_total", "Background tasks that were taken."),
    ("hitbox_offload_completed_total", "Background tasks that ended."),
    ("hitbox_offload_panicked_total", "Background tasks that panicked."),
    ("hitbox_offload_timed_out_total", "Background tasks that were cut at their limit."),
    ("hitbox_offload_cancelled_total", "Background tasks that were cancelled."),
    ("hitbox_offload_refused_total", "Background tasks that were refused, by reason."),
];

/// By how the name ends, for series of what a store holds.
const HELD: [(&str, &str); 4] = [
    ("_evictions_total", "Entries that a store has put out for want of room."),
    ("_expirations_total", "Entries that a store has dropped since their time was over."),
    ("_size_bytes", "Bytes that a store holds."),
    ("_entries", "Entries that a store holds."),
];

/// What a series of this crate is; nothing for others.
pub(super) fn help_of(name: &str) -> &'static str {
    let exact = HELP.iter().find(|(known, _)| *known == name);
    let known = exact.or_else(|| HELD.iter().find(|(end, _)| name.ends_with(end)));
    known.map_or("", |(_, help)| help)
}
