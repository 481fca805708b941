//! The two codes that link a device: what the new device shows, what the first device answers.
//!
//! Both are text that survives a shell and a QR code: a prefix and base32 of CBOR behind four bytes
//! of checksum. The request holds public keys only. The answer holds the signed device list and
//! where the server is: nothing secret, but only worth something to the device that asked.
//!
//! ```text
//! request  commucat:link/<base32 of checksum | {0: Noise key, 1: MLS signature key}>
//! answer   commucat:linked/<base32 of checksum | {0: endpoint, 1: domain, 2: domain key,
//!          3: device list (signed)}>
//! ```

use commucat_proto::id::{Domain, DomainKey, NoiseKey, base32, from_base32};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;

use super::CertificateRequest;
use crate::error::ClientError;

const REQUEST: &str = "commucat:link/";
const ANSWER: &str = "commucat:linked/";

/// What the first device hands over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// `host:port` of the home server.
    pub(crate) endpoint: String,
    pub(crate) domain: Domain,
    pub(crate) domain_key: DomainKey,
    /// The list that holds the new device's certificate.
    pub(crate) list: Signed,
}

impl Cbor for CertificateRequest {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.noise);
            map.key(1).bytes(&self.mls);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut noise, mut mls) = (None, None);
        from.map(|key, from| {
            match key {
                0 => noise = Some(NoiseKey::read(from)?),
                1 => {
                    let raw = from.slice()?.try_into();
                    mls = Some(raw.map_err(|_| CborError::Range("an MLS signature key"))?);
                }
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            noise: required(noise, 0)?,
            mls: required(mls, 1)?,
        })
    }
}

impl Cbor for Answer {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.key(0).text(&self.endpoint);
            map.put(1, &self.domain);
            map.put(2, &self.domain_key);
            map.put(3, &self.list);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut endpoint, mut domain, mut domain_key, mut list) = (None, None, None, None);
        from.map(|key, from| {
            match key {
                0 => endpoint = Some(from.text()?.to_owned()),
                1 => domain = Some(Domain::read(from)?),
                2 => domain_key = Some(DomainKey::read(from)?),
                3 => list = Some(Signed::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            endpoint: required(endpoint, 0)?,
            domain: required(domain, 1)?,
            domain_key: required(domain_key, 2)?,
            list: required(list, 3)?,
        })
    }
}

impl CertificateRequest {
    /// The code that the new device shows.
    pub(crate) fn code(&self) -> String {
        pack(REQUEST, self)
    }

    /// Reads [`Self::code`].
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        unpack(REQUEST, text).ok_or(ClientError::Invalid {
            what: "code of a new device",
        })
    }
}

impl Answer {
    /// The text for the new device.
    pub(crate) fn code(&self) -> String {
        pack(ANSWER, self)
    }

    /// Reads [`Self::code`].
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        unpack(ANSWER, text).ok_or(ClientError::Invalid {
            what: "answer of the first device",
        })
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let hash = *blake3::hash(body).as_bytes();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

fn pack(prefix: &str, value: &impl Cbor) -> String {
    let body = value.encode();
    let all = [checksum(&body).as_slice(), &body].concat();
    format!("{prefix}{}", base32(&all))
}

fn unpack<T: Cbor>(prefix: &str, text: &str) -> Option<T> {
    // Terminals break long lines; nothing of the code is white space.
    let text: String = text.split_whitespace().collect();
    let all = from_base32(text.strip_prefix(prefix)?)?;
    let (sum, body) = all.split_first_chunk::<4>()?;
    if *sum != checksum(body) {
        return None;
    }
    T::decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_line_breaks_and_is_refused_with_a_typing_error() {
        let request = CertificateRequest {
            noise: NoiseKey::new([1; 32]),
            mls: [2; 32],
        };
        let code = request.code();

        let (start, end) = code.split_at(60);
        let broken = format!(" {start}\n{end}\n");
        let typo = code.replacen('a', "b", 1);

        assert_eq!(CertificateRequest::parse(&broken).unwrap(), request);
        assert!(CertificateRequest::parse(&typo).is_err());
        assert!(Answer::parse(&code).is_err());
    }
}
