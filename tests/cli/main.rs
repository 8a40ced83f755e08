//! The command line as a user runs it: a real `cairn dev`, and every verb with its exit code and its two streams.
//!
//! | file | what is in it |
//! |---|---|
//! | `support.rs` | a server, and commands run at it |
//! | `verbs.rs` | what every verb does |
//! | `terminal.rs` | what is different on a terminal: questions, progress, colour |
//! | `transcript.rs` | what every verb prints, word for word, in `transcripts/` |

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;
mod terminal;
mod transcript;
mod verbs;
