//! The test suites of other HTTP parsers, run over ours: byte streams with what their authors say of them.
//!
//! The suites are no part of this repository. They are looked for in `AUTHSENSOR_CORPORA`, or in `shared/corpora` beside
//! the checkout; without them the tests say so and pass. Where we differ on purpose, `docs/agreement.md` says how and why:
//! a case that stands there must differ, and one that differs must stand there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail the test"
)]

#[path = "bundles/agreement.rs"]
mod agreement;
#[path = "bundles/libhtp.rs"]
mod libhtp;
#[path = "bundles/llhttp.rs"]
mod llhttp;
#[expect(dead_code, reason = "shared with the parser's own tests, which use more of it")]
#[path = "parser/rig.rs"]
mod rig;
#[path = "bundles/suite.rs"]
mod suite;
