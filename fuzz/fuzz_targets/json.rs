//! Any bytes as each JSON document: what is read is written, and reads the same again.
#![no_main]

use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, OfferedVersions};
use commucat_proto::well_known::WellKnown;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    if let Ok(hello) = Hello::decode(raw) {
        assert!(OfferedVersions::decode(raw).is_ok());
        assert!(Hello::decode(&hello.encode()).is_ok_and(|again| again == hello));
    }
    if let Ok(auth) = AuthDown::decode(raw) {
        assert!(AuthDown::decode(&auth.encode()).is_ok_and(|again| again == auth));
    }
    if let Ok(auth) = AuthUp::decode(raw) {
        assert!(AuthUp::decode(&auth.encode()).is_ok_and(|again| again == auth));
    }
    if let Ok(problem) = Problem::of_json(raw) {
        assert!(Problem::of_json(&problem.to_json()).is_ok_and(|again| again == problem));
    }
    if let Ok(document) = WellKnown::decode(raw) {
        assert!(WellKnown::decode(&document.encode()).is_ok_and(|again| again == document));
    }
});
