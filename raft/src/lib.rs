//! cairn-raft
