//! The demo.

pub mod clock;
pub mod elector;
pub mod event;
pub mod ledger;
pub mod match_condition;
pub mod memory_store;
pub mod review;
pub mod stamps;
pub mod store;
pub mod webhook;
