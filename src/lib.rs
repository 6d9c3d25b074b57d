//! Leasehold guards Kubernetes leader election: a validating admission webhook that refuses early `Lease`
//! takeovers and never stops a correct elector.

pub mod admission;
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod lease;
pub mod metrics;
pub mod policy;
pub mod server;
pub mod verdict;
