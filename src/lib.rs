//! Leasehold guards Kubernetes leader election: a validating admission webhook that refuses early `Lease`
//! takeovers and never stops a correct elector.
//!
//! # Bird's-eye view
//!
//! ```text
//! API server                                     leasehold serve
//! ----------                                     ---------------
//! a write to a Lease                             TLS, HTTP/2, deadlines, caps         server/
//!   | matchCondition: a pure renewal stays here       |
//!   '---- AdmissionReview, over TLS ----------->  bytes
//!                                                     | borrowed decode               admission/
//!                                                  Write: Change, Record, Stamps      lease/
//!                                                     | Evidence: elapsed by stamps   lease/
//!                                                  rules, by the policy in force      policy/
//!                                                     |
//!                                                  Verdict                            verdict.rs
//!   <---- allowed, or 403 Forbidden with why ----      |
//!                                                     +-- audit log, one JSON line    audit/
//!                                                     +-- metrics                     metrics/
//!                                                     '-- Events on the Lease         events/
//! ```
//!
//! The policy in force comes from a file or from a ConfigMap that [`cluster`] watches; it is swapped in whole
//! through [`policy::ActivePolicy`].
//!
//! # Code map
//!
//! - [`lease`]: the domain. What a lease says ([`lease::Record`]), when the API server saw it written
//!   ([`lease::Stamps`]), what a write does ([`lease::Change`]), how long ago the lease was renewed
//!   ([`lease::Evidence`]), and how the record reads where it is kept in an annotation
//!   ([`lease::annotation_lock`]). **Invariant:** pure. No I/O, no clock, no async, no Kubernetes client (a lint sees to
//!   clock and I/O here and wherever else they may not be: `clippy.toml`), and nothing tied to the `Lease` kind.
//! - [`policy`]: the document, its defaults, and [`policy::rules`], one file a rule. **Invariant:** pure, too. A
//!   verdict is a function of the write, the policy and the instant that the caller passes in; two replicas
//!   answer alike, before and after a restart. Nothing here remembers a write.
//!   [`policy::in_process`] says the same in CEL, as far as CEL can, for the API server itself.
//! - [`memory`]: what was seen of each lease before, bounded, for the rules that advise by it. **Invariant:** it
//!   never changes whether a write is denied, and no review waits for it.
//! - [`verdict`]: what comes of the rules that fired, and the words that users read.
//! - [`admission`]: reviews in, answers out. **Invariant:** only this module knows the JSON of an
//!   `AdmissionReview`; an answer without a uid or with a patch cannot be said.
//! - [`audit`]: the audit log's schema, and the queue to its writer. **Invariant:** recording never blocks a
//!   verdict.
//! - [`events`]: what is told on the objects themselves: a queue, and a book that makes few writes of many
//!   occurrences. **Invariant:** a verdict never waits for it, and a dry run leaves no trace in it.
//! - [`metrics`]: every series, there at zero. **Invariant:** labels are bounded, those that name leases and holders by
//!   a number of each, with the rest counted together.
//! - [`server`]: listener, TLS, certificates, limits, readiness, drain. **Invariant:** knows nothing of leases; it
//!   carries bytes to a function and back.
//! - [`cluster`]: what talks to Kubernetes. **Invariant:** a verdict never waits for it.
//!   [`cluster::certificates`] keeps the serving certificate. **Invariant:** `caBundle` is never without the CA of a
//!   leaf that a replica serves; a private key is in no log, metric or error.
//! - [`cel`]: text for expressions that run in the API server. **Invariant:** pure; what a user wrote goes into an
//!   expression by [`cel::literal`] alone.
//! - [`fence`]: the policy in CEL that lets only a lease's holder write what it leads. **Invariant:** pure.
//! - [`log_lines`]: the lines of a log that somebody hands over, plain or compressed, in bounded memory.
//! - [`suggest`]: from the audit log to the overrides that a policy needs: records in, a policy's text out. **Invariant:** of
//!   a policy that it adds to, every byte stays; no line of a log is lost without a reason; memory is bounded.
//! - [`replay`]: who led when, from the API server's audit logs: each write is put to the same rules as a review.
//!   **Invariant:** memory grows with leases, not with the log; what is inferred is said to be.
//! - [`demo`]: the story that `leasehold demo` tells, on the real server.
//! - [`cli`]: one file a command. **Invariant:** the only place that prints, and that turns errors into exit codes.
//!
//! # What must never happen
//!
//! - A correct elector is stopped: by a verdict (see each rule's table of cases, and the electors in the tests),
//!   or by a slow, dead or misconfigured Leasehold (pure renewals never reach it, and the registration ignores
//!   its failures).
//! - A takeover passes although the API server's own stamps prove it early.
//! - A review is answered with a panic, an empty uid, or a verdict that does not explain itself.
//! - Bad input replaces good state: a policy or a certificate that cannot be read leaves the last good one in
//!   force, and the log, a metric and the readiness detail say so.

pub mod admission;
pub mod audit;
pub mod cel;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod events;
pub mod fence;
pub mod lease;
pub mod log_lines;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod policy;
pub mod replay;
pub mod server;
pub mod suggest;
pub mod verdict;
