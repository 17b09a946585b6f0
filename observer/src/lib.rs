//! Source IP Observer: where a client's address was lost, by whom, because of which setting.

pub mod cluster;
