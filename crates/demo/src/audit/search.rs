//! Looks for words in bytes: as they are, in hex, and in base64 at any place of an encoded text.

use aho_corasick::AhoCorasick;
use anyhow::{Result, ensure};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Shorter words would be found in random bytes.
const WORD_MIN: usize = 8;

/// Words in all their forms.
#[derive(Debug)]
pub(super) struct Needles {
    automaton: AhoCorasick,
}

impl Needles {
    pub(super) fn new(words: &[String]) -> Result<Self> {
        let mut forms = Vec::new();
        for word in words {
            ensure!(
                word.len() >= WORD_MIN,
                "`{word}` is too short to search for"
            );
            forms.append(&mut forms_of(word.as_bytes()));
        }
        let automaton = AhoCorasick::new(forms)?;
        Ok(Self { automaton })
    }

    /// Places where a word is found.
    pub(super) fn count(&self, bytes: &[u8]) -> usize {
        self.automaton.find_iter(bytes).count()
    }
}

fn forms_of(word: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        word.to_vec(),
        HEXLOWER.encode(word).into_bytes(),
        HEXUPPER.encode(word).into_bytes(),
    ];
    for before in 0..3 {
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            forms.push(inner_base64(&encoding, word, before));
        }
    }
    forms.dedup();
    forms
}

/// The characters of base64 that depend on `word` alone when `before` bytes stand before it.
fn inner_base64(encoding: &data_encoding::Encoding, word: &[u8], before: usize) -> Vec<u8> {
    let mut padded = vec![0; before];
    padded.extend_from_slice(word);
    let whole = padded.len() * 8 / 6;
    let first = (before * 8).div_ceil(6);
    let text = encoding.encode(&padded).into_bytes();
    text.get(first..whole).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles() -> Needles {
        Needles::new(&["apples and pears".to_owned()]).unwrap()
    }

    #[test]
    fn every_form_is_found_at_every_place() {
        for before in 0..7 {
            for after in 0..7 {
                let mut hidden = vec![0xFB; before];
                hidden.extend_from_slice(b"apples and pears");
                hidden.extend(vec![0xFB; after]);

                for form in [
                    hidden.clone(),
                    HEXLOWER.encode(&hidden).into_bytes(),
                    HEXUPPER.encode(&hidden).into_bytes(),
                    data_encoding::BASE64.encode(&hidden).into_bytes(),
                    data_encoding::BASE64URL.encode(&hidden).into_bytes(),
                ] {
                    assert_eq!(needles().count(&form), 1, "{before} {after}");
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_not_found() {
        assert_eq!(needles().count(b"apples and plums, APPLES AND PEARS"), 0);
    }

    #[test]
    fn words_that_chance_would_find_are_refused() {
        assert!(Needles::new(&["hi".to_owned()]).is_err());
    }
}
