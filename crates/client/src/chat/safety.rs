//! Safety numbers: what two people compare to know that nobody sits between them.

use commucat_proto::id::AccountKey;

/// Rounds of hashing: searching for another key with the same half takes as many times longer.
const ROUNDS: usize = 5_200;

/// Half a number: 6 groups of 5 digits, about 99 bits.
const GROUPS: usize = 6;

/// The 60 digits that two people compare, in 12 groups of 5.
///
/// Both compute the same number: each half comes from one account key alone, the smaller half
/// comes first. A half is `h = BLAKE3("commucat/2 safety number" | 0x00 | key)`, then 5,199 times
/// `h = BLAKE3(h | key)`; its first 30 bytes are 6 big-endian numbers of 5 bytes, each modulo
/// 100,000 and written with 5 digits.
#[must_use]
pub fn safety_number(one: &AccountKey, other: &AccountKey) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort_unstable();
    halves.join(" ")
}

fn half(key: &AccountKey) -> String {
    let mut first = blake3::Hasher::new();
    first
        .update(b"commucat/2 safety number\0")
        .update(key.as_bytes());
    let mut hash = first.finalize();
    for _ in 1..ROUNDS {
        let mut next = blake3::Hasher::new();
        next.update(hash.as_bytes()).update(key.as_bytes());
        hash = next.finalize();
    }
    let groups: Vec<String> = hash
        .as_bytes()
        .chunks_exact(5)
        .take(GROUPS)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        })
        .map(|number| format!("{:05}", number % 100_000))
        .collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_people_see_the_same_sixty_digits() {
        let (one, other) = (AccountKey::new([1; 32]), AccountKey::new([2; 32]));

        let number = safety_number(&one, &other);

        assert_eq!(number, safety_number(&other, &one));
        assert_eq!(number.chars().filter(char::is_ascii_digit).count(), 60);
        assert_eq!(number.len(), 71);
    }

    #[test]
    fn another_key_gives_another_number() {
        let (one, other) = (AccountKey::new([1; 32]), AccountKey::new([2; 32]));

        assert_ne!(
            safety_number(&one, &other),
            safety_number(&one, &AccountKey::new([3; 32]))
        );
    }
}
