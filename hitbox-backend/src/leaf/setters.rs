//! The setters that the builders of leaves have in common.

/// Setters of a builder with a field `options:` [`LeafOptions`](crate::store::LeafOptions): `label`, `clock` and
/// `limits`,
/// and for leaves that store bytes those of the codec. The literal is the default label.
#[macro_export]
macro_rules! leaf_setters {
    ($label:literal) => {
        #[doc = concat!("Its label, `", $label, "` by default: the last part of its path.")]
        #[must_use]
        pub fn label(mut self, label: &str) -> Self {
            self.options.label = label.into();
            self
        }

        /// Where it gets the time from, the machine's clock by default. Under a clock that is driven by
        /// hand nothing is dropped but by a sweep.
        #[must_use]
        pub fn clock(mut self, clock: ::std::sync::Arc<dyn $crate::core::Clock>) -> Self {
            self.options.clock = clock;
            self
        }

        /// What it accepts; larger items are refused with an error that names size and limit. Default: those of
        /// [`Limits::DEFAULT`](hitbox_core::Limits::DEFAULT).
        #[must_use]
        pub fn limits(mut self, limits: $crate::core::Limits) -> Self {
            self.options.limits = limits;
            self
        }
    };
    ($label:literal, codec) => {
        $crate::leaf_setters!($label);

        /// The serialization format, MessagePack by default.
        #[must_use]
        pub fn format(mut self, format: $crate::Format) -> Self {
            self.options.codec.format = format;
            self
        }

        /// The compressor, none by default.
        #[must_use]
        pub fn compressor(mut self, compressor: $crate::Compressor) -> Self {
            self.options.codec.compressor = compressor;
            self
        }

        /// The whole codec: format, compressor, compression rules and schema version. Default: MessagePack, without a
        /// compressor, schema 0.
        #[must_use]
        pub fn codec(mut self, codec: $crate::Codec) -> Self {
            self.options.codec = codec;
            self
        }

        /// The schema version of the stored types, 0 by default. Records of another one are misses.
        #[must_use]
        pub fn schema(mut self, schema: u32) -> Self {
            self.options.codec.schema = schema;
            self
        }
    };
}
