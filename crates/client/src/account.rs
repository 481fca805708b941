//! Account and device keys: the recovery phrase, certificates, device lists.
//!
//! The account key comes from the recovery phrase and signs certificates and lists, nothing else.
//! Only the first device keeps it (CCP-1 section 6).

pub(crate) mod code;

use std::time::Duration;

use bip39::{Language, Mnemonic};
use bytes::Bytes;
use commucat_crypto::StaticKey;
use commucat_crypto::certificate::{AccountSecret, DeviceKeys, List, Validity};
use commucat_crypto::secret::{Secret, random_bytes};
use commucat_crypto::signing::SigningKey;
use commucat_proto::id::{AccountId, DeviceId, Domain, NoiseKey, Token};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;
use zeroize::Zeroizing;

use crate::engine::model::Account;
use crate::error::ClientError;

/// How far clocks may be behind the one that signs a certificate.
const BACKDATED: Duration = Duration::from_secs(86_400);
/// Certificates are renewed by a new list, so their own end is far away.
const VALID: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The 24 words that an account comes from.
pub(crate) struct Phrase(Zeroizing<[u8; 32]>);

impl Phrase {
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    pub(crate) fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(Zeroizing::new(entropy))
    }

    /// Reads words as people type them.
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let invalid = || ClientError::Invalid {
            what: "recovery phrase",
        };
        let words = text.to_lowercase();
        let mnemonic = Mnemonic::parse_in(Language::English, words).map_err(|_| invalid())?;
        let entropy = Zeroizing::new(mnemonic.to_entropy());
        let entropy = entropy.as_slice().try_into().map_err(|_| invalid())?;
        Ok(Self(Zeroizing::new(entropy)))
    }

    pub(crate) fn entropy(&self) -> [u8; 32] {
        *self.0
    }

    /// The words, separated by single spaces.
    pub(crate) fn words(&self) -> String {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &*self.0);
        // 32 bytes are a length that BIP 39 knows.
        mnemonic
            .map(|mnemonic| mnemonic.to_string())
            .unwrap_or_default()
    }

    /// The account's secret key: a hash of the phrase's entropy for this one purpose.
    pub(crate) fn account_secret(&self) -> AccountSecret {
        let seed = Zeroizing::new(blake3::derive_key("commucat/2 account key", &*self.0));
        AccountSecret::from_seed(&Secret::new(*seed))
    }
}

/// A device that belongs to no account yet.
pub(crate) fn new_device() -> Account {
    let noise = StaticKey::generate();
    let mls = SigningKey::generate();
    Account {
        key: None,
        entropy: None,
        device: DeviceId::of_key(noise.public()),
        noise: *noise.private().expose(),
        mls: *mls.seed().expose(),
        list: None,
        list_version: 0,
        capability: Token::new(random_bytes()),
        capability_published: false,
        invite: None,
        registered: false,
        server: None,
        had_gap: false,
    }
}

impl Account {
    pub(crate) fn noise_key(&self) -> StaticKey {
        StaticKey::from_private(Secret::new(self.noise))
    }

    pub(crate) fn mls_seed(&self) -> Secret<32> {
        Secret::new(self.mls)
    }

    fn mls_public(&self) -> [u8; 32] {
        SigningKey::from_seed(&self.mls_seed()).public()
    }

    pub(crate) fn phrase(&self) -> Option<Phrase> {
        self.entropy.map(Phrase::from_entropy)
    }

    /// What a first device asks to be certified.
    pub(crate) fn request(&self) -> CertificateRequest {
        CertificateRequest {
            noise: *self.noise_key().public(),
            mls: self.mls_public(),
        }
    }

    /// Makes this device the first one of the account of `phrase`.
    pub(crate) fn found(&mut self, phrase: &Phrase, domain: &Domain, now: Timestamp) {
        let secret = phrase.account_secret();
        let certificate = certify(&secret, &self.request(), now);
        let list = secret.list(domain, now.as_millis(), now, vec![certificate]);
        self.key = Some(secret.key());
        self.entropy = Some(phrase.entropy());
        self.list_version = now.as_millis();
        self.list = Some(list.encode());
    }

    /// The own signed list.
    pub(crate) fn signed_list(&self) -> Option<Signed> {
        Signed::decode(self.list.as_deref()?).ok()
    }

    /// The own list, verified.
    pub(crate) fn verified_list(&self) -> Option<List> {
        List::verify(&self.signed_list()?).ok()
    }

    /// The own certificate, as it stands in the list.
    pub(crate) fn certificate(&self) -> Option<Signed> {
        let list = self.verified_list()?;
        Some(list.certificate(&self.device)?.signed().clone())
    }
}

/// What a new device shows of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CertificateRequest {
    pub(crate) noise: NoiseKey,
    pub(crate) mls: [u8; 32],
}

/// Certifies a device.
pub(crate) fn certify(
    secret: &AccountSecret,
    request: &CertificateRequest,
    now: Timestamp,
) -> Signed {
    let keys = DeviceKeys {
        device: DeviceId::of_key(&request.noise),
        noise_key: request.noise,
        mls_key: Bytes::copy_from_slice(&request.mls),
    };
    let validity = Validity {
        not_before: now.saturating_sub(BACKDATED),
        not_after: now.saturating_add(VALID),
    };
    secret.certify(&keys, validity)
}

/// Verifies a list as one of the account `expected`.
///
/// # Errors
///
/// [`ClientError::Identity`] with the step that failed.
pub(crate) fn verify_list(signed: &Signed, expected: &AccountId) -> Result<List, ClientError> {
    let list = List::verify(signed)
        .map_err(|_| ClientError::Identity("a device list is not signed by its account"))?;
    if list.account_id() != *expected {
        return Err(ClientError::Identity("a device list is of another account"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn domain() -> Domain {
        Domain::parse("localhost").unwrap()
    }

    #[test]
    fn a_phrase_of_24_words_gives_the_account_back() {
        let phrase = Phrase::generate();

        let words = phrase.words();
        let again = Phrase::parse(&format!("  {} ", words.to_uppercase())).unwrap();

        assert_eq!(words.split(' ').count(), 24);
        assert_eq!(again.account_secret().key(), phrase.account_secret().key());
        assert!(Phrase::parse("abandon abandon").is_err());
    }

    #[test]
    fn the_list_of_a_first_device_verifies_and_holds_its_certificate() {
        let mut account = new_device();
        account.found(&Phrase::generate(), &domain(), NOW);

        let list = verify_list(
            &account.signed_list().unwrap(),
            &AccountId::of_key(&account.key.unwrap()),
        )
        .unwrap();

        assert_eq!(list.certificates().len(), 1);
        assert!(list.certificate(&account.device).is_some());
        assert!(account.certificate().is_some());
    }

    #[test]
    fn a_list_of_another_account_is_refused() {
        let mut account = new_device();
        account.found(&Phrase::generate(), &domain(), NOW);
        let other = Phrase::generate().account_secret().id();

        assert!(verify_list(&account.signed_list().unwrap(), &other).is_err());
    }
}
