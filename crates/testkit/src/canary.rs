//! Unique values that are sent through every flow, and the search for them in all that is kept.

use aho_corasick::AhoCorasick;
use anyhow::Result;
use data_encoding::{BASE32, BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// Shorter encoded needles occur by chance.
const NEEDLE_MIN: usize = 7;
/// Shortest raw bytes that are looked for.
const RAW_MIN: usize = 4;

/// Where a value may be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allowed {
    /// Nowhere.
    Nowhere,
    /// In the store, where `docs/data-manifest.toml` lists it.
    Store,
    /// On the operator's terminal.
    Terminal,
}

/// A place where values may be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The files of the store.
    Store,
    /// What the operator sees at the first start.
    Terminal,
    /// Anything else: logs, metrics, ledger, keys.
    Other,
}

/// A value to look for.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What it is.
    pub name: String,
    /// Where it may be.
    pub allowed: Allowed,
    /// The forms in which it is looked for.
    needles: Vec<(&'static str, Vec<u8>)>,
}

/// Bytes that were searched.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it is.
    pub name: String,
    /// What kind of place.
    pub kind: Kind,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A value where it may not be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Hit {
    /// The canary's name.
    pub canary: String,
    /// The place's name.
    pub place: String,
    /// The form in which it was found.
    pub form: &'static str,
}

impl Canary {
    /// A text.
    #[must_use]
    pub fn text(name: &str, allowed: Allowed, text: &str) -> Self {
        let mut own = Self::bytes(name, allowed, text.as_bytes());
        let units: Vec<u16> = text.encode_utf16().collect();
        let little = units.iter().flat_map(|unit| unit.to_le_bytes());
        own.add("UTF-16LE", little.collect());
        own.add(
            "UTF-16BE",
            units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        );
        own.add("upper case", text.to_uppercase().into_bytes());
        own.add("lower case", text.to_lowercase().into_bytes());
        own
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(name: &str, allowed: Allowed, bytes: &[u8]) -> Self {
        let mut own = Self {
            name: name.to_owned(),
            allowed,
            needles: Vec::new(),
        };
        if bytes.len() >= RAW_MIN {
            own.needles.push(("raw", bytes.to_vec()));
        }
        own.add("hex", HEXLOWER.encode(bytes).into_bytes());
        own.add("HEX", HEXUPPER.encode(bytes).into_bytes());
        let base32 = BASE32.encode(bytes);
        let base32 = base32.trim_end_matches('=');
        own.add("base32", base32.to_lowercase().into_bytes());
        own.add("BASE32", base32.as_bytes().to_vec());
        for before in 0..3 {
            // The characters that depend on these bytes alone, wherever they begin.
            let shifted = [vec![0; before], bytes.to_vec()].concat();
            let first = (before * 8).div_ceil(6);
            let last = shifted.len() * 8 / 6;
            for (form, encoding) in [("base64", &BASE64), ("base64url", &BASE64URL)] {
                let text = encoding.encode(&shifted).into_bytes();
                own.add(form, text.get(first..last).unwrap_or_default().to_vec());
            }
        }
        let numbers: Vec<_> = bytes.iter().map(ToString::to_string).collect();
        own.add("list of numbers", numbers.join(", ").into_bytes());
        own.add("array of numbers", numbers.join(",").into_bytes());
        own
    }

    fn add(&mut self, form: &'static str, needle: Vec<u8>) {
        if needle.len() >= NEEDLE_MIN && !self.needles.iter().any(|(_, known)| *known == needle) {
            self.needles.push((form, needle));
        }
    }

    const fn may_be_in(&self, kind: Kind) -> bool {
        match self.allowed {
            Allowed::Nowhere => false,
            Allowed::Store => matches!(kind, Kind::Store),
            Allowed::Terminal => matches!(kind, Kind::Terminal),
        }
    }
}

/// Looks for canaries.
#[derive(Debug)]
pub struct Searcher {
    canaries: Vec<Canary>,
    /// Canary and form of each pattern.
    owners: Vec<(usize, &'static str)>,
    automaton: AhoCorasick,
}

impl Searcher {
    /// For these canaries.
    ///
    /// # Errors
    ///
    /// If they are too many for the automaton.
    pub fn new(canaries: Vec<Canary>) -> Result<Self> {
        let (mut owners, mut patterns) = (Vec::new(), Vec::new());
        for (index, canary) in canaries.iter().enumerate() {
            for (form, needle) in &canary.needles {
                owners.push((index, *form));
                patterns.push(needle.clone());
            }
        }
        Ok(Self {
            canaries,
            owners,
            automaton: AhoCorasick::new(patterns)?,
        })
    }

    /// How many are looked for.
    #[must_use]
    pub const fn canaries(&self) -> usize {
        self.canaries.len()
    }

    /// Everything that is found, also where it may be.
    fn found<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (&'a Canary, &'static str)> {
        let all = self.automaton.find_overlapping_iter(&place.bytes);
        all.filter_map(|found| {
            let (index, form) = self.owners.get(found.pattern().as_usize())?;
            Some((self.canaries.get(*index)?, *form))
        })
    }

    /// What is where it may not be, each once.
    #[must_use]
    pub fn hits(&self, place: &Place) -> Vec<Hit> {
        let bad = self
            .found(place)
            .filter(|(canary, _)| !canary.may_be_in(place.kind));
        let mut hits: Vec<_> = bad
            .map(|(canary, form)| Hit {
                canary: canary.name.clone(),
                place: place.name.clone(),
                form,
            })
            .collect();
        hits.sort_unstable();
        hits.dedup();
        hits
    }

    /// Whether a canary is there in any form.
    #[must_use]
    pub fn is_in(&self, name: &str, place: &Place) -> bool {
        self.found(place).any(|(canary, _)| canary.name == name)
    }

    /// Plants each form of each canary and looks for it: how many were not found. A search that
    /// finds nothing proves something only if this is 0.
    #[must_use]
    pub fn blind_spots(&self) -> usize {
        let all = self.canaries.iter().flat_map(|canary| {
            let forms = canary.needles.iter();
            forms.map(move |(form, needle)| (canary, form, needle))
        });
        let missed = all.filter(|(canary, form, needle)| {
            let bytes = [b"\x00before ", needle.as_slice(), b"\xffafter"].concat();
            let place = Place {
                name: "planted".to_owned(),
                kind: Kind::Other,
                bytes,
            };
            let hits = self.hits(&place);
            !hits
                .iter()
                .any(|hit| hit.canary == canary.name && hit.form == **form)
        });
        missed.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: Kind, bytes: &[u8]) -> Place {
        Place {
            name: "here".to_owned(),
            kind,
            bytes: bytes.to_vec(),
        }
    }

    fn forms(bytes: &[u8]) -> Vec<&'static str> {
        let canary = Canary::text("word", Allowed::Nowhere, "Canary-Word-7");
        let searcher = Searcher::new(vec![canary]).unwrap();
        let hits = searcher.hits(&place(Kind::Other, bytes));
        hits.into_iter().map(|hit| hit.form).collect()
    }

    #[test]
    fn a_text_is_found_in_every_form() {
        assert_eq!(forms(b"xxCanary-Word-7yy"), ["raw"]);
        assert_eq!(forms(b"xxcanary-word-7yy"), ["lower case"]);
        assert_eq!(forms(b"43616e6172792d576f72642d37"), ["hex"]);
        assert_eq!(
            forms(b"\0C\0a\0n\0a\0r\0y\0-\0W\0o\0r\0d\0-\x007"),
            ["UTF-16BE"]
        );
        assert_eq!(
            forms(b"[67, 97, 110, 97, 114, 121, 45, 87, 111, 114, 100, 45, 55]").len(),
            1
        );
        assert_eq!(forms(b"Canary-Word-8, canary"), [""; 0]);
    }

    #[test]
    fn base64_is_found_wherever_it_begins() {
        for before in ["", "a", "ab", "abc"] {
            let text = BASE64.encode(format!("{before}Canary-Word-7 and more").as_bytes());

            assert_eq!(forms(text.as_bytes()), ["base64"], "{before}");
        }
    }

    #[test]
    fn what_may_be_in_the_store_is_no_hit_there_and_one_elsewhere() {
        let canary = Canary::bytes("id", Allowed::Store, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let searcher = Searcher::new(vec![canary]).unwrap();
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8];

        assert_eq!(searcher.hits(&place(Kind::Store, &bytes)), []);
        assert_eq!(searcher.hits(&place(Kind::Other, &bytes)).len(), 1);
        assert!(searcher.is_in("id", &place(Kind::Store, &bytes)));
    }

    #[test]
    fn every_planted_form_is_found() {
        let canaries = vec![
            Canary::text("text", Allowed::Nowhere, "a text of some length"),
            Canary::text("address", Allowed::Nowhere, "127.7.77.7"),
            Canary::bytes("address, raw", Allowed::Nowhere, &[127, 7, 77, 7]),
            Canary::bytes("key", Allowed::Nowhere, &[0xab; 32]),
        ];
        let searcher = Searcher::new(canaries).unwrap();

        assert_eq!(searcher.blind_spots(), 0);
    }
}
