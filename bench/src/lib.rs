//! Measures Cairn; the numbers stand in `docs/decisions/`, each with its machine.
//!
//! | bench | measures |
//! |---|---|
//! | `benches/codec` | protobuf against bincode and postcard on the messages of log and store |
//! | `benches/seal` | sealing and opening of records and frames, lookup ids |
//!
//! Run with `make bench`, or one of them with `cargo bench --package cairn-bench --bench seal`.
