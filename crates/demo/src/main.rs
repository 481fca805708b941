//! The CommuCat demonstration.
fn main() {}
