//! Frames as others see them: vectors made elsewhere, strictness, limits, round trips, the document.

// `cfg(test)` is always true here; it lets the lints know that everything below is a test.
#[cfg(test)]
mod decoder;
#[cfg(test)]
mod document;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod vectors;
