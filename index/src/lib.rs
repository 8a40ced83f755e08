//! cairn-index
