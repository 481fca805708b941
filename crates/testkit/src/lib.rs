//! Real servers, clients, faults and checkers for CommuCat's tests.
