//! State machines: electors, API servers and clocks in any order, on a model; and the real handler under the reviews
//! that such a model sends.
//!
//! | file | subject |
//! |---|---|
//! | `api_server` | the model of the API server: versions, stamps, the lean matchCondition |
//! | `elector` | the model of an elector: the contract, and the ways to break it |
//! | `scenario` | worlds of servers and electors, and sequences of steps |
//! | `world` | lets a scenario happen, and keeps account of it |
//! | `contract` | who keeps the contract is never denied, and nobody leads beside another |
//! | `breaches` | who breaks it does not get a lease early |
//! | `purposes` | nobody makes a live election pass for a lock, by any route of up to three writes |
//! | `review` | a write of the model as the `AdmissionReview` that the API server would send |
//! | `handler` | the handler answers each review as the policy decides, and counts it |
//!
//! What the model leaves out: clocks that run at different rates, and electors that renew without naming the holder.

mod api_server;
mod breaches;
mod contract;
mod elector;
mod handler;
mod purposes;
mod review;
mod scenario;
mod world;
