//! The header of the PROXY protocol, by which a proxy names the client that it speaks for.
//!
//! Read byte for byte as long as it is: what follows is TLS and belongs to somebody else.

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// As much as tells the two versions apart, and less than any header has.
const START_BYTES: usize = 8;
/// How a header of version 1 begins.
const TEXT_START: &[u8; 6] = b"PROXY ";
/// Longest header of version 1, with its line end.
const TEXT_BYTES_MAX: usize = 107;
/// How a header of version 2 begins; the rest of its signature is for the parser.
const BINARY_START: &[u8; START_BYTES] = b"\r\n\r\n\0\r\nQ";
/// Signature, version, family and length of version 2.
const BINARY_FIXED_BYTES: usize = 16;
/// What follows them at most: two addresses and what proxies tell of their own TLS. HAProxy sends less
/// than 600 bytes with everything that it knows.
const BINARY_REST_BYTES_MAX: usize = 1024;

/// Why a header was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The connection ended or failed.
    #[error("the connection ends in the header")]
    Read(#[from] io::Error),
    /// It begins with something else.
    #[error("not a header of the PROXY protocol")]
    Missing,
    /// Longer than anything a proxy has to say.
    #[error("the header is too long")]
    TooLong,
    /// It breaks the rules.
    #[error("the header cannot be read")]
    Malformed,
}

/// Reads a header and nothing behind it. `None`: the proxy speaks for itself (a health check).
///
/// The caller sets the deadline.
pub(super) async fn read<S>(stream: &mut S) -> Result<Option<IpAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut header = vec![0; START_BYTES];
    stream.read_exact(&mut header).await?;
    if header.starts_with(TEXT_START) {
        read_line(stream, &mut header).await?;
    } else if header == BINARY_START {
        read_binary(stream, &mut header).await?;
    } else {
        return Err(HeaderError::Missing);
    }
    parse(&header)
}

/// The rest of a line, byte by byte: where it ends is known only when it does.
async fn read_line<S>(stream: &mut S, header: &mut Vec<u8>) -> Result<(), HeaderError>
where
    S: AsyncRead + Unpin,
{
    while !header.ends_with(b"\r\n") {
        if header.len() >= TEXT_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn read_binary<S>(stream: &mut S, header: &mut Vec<u8>) -> Result<(), HeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut fixed = [0; BINARY_FIXED_BYTES - START_BYTES];
    stream.read_exact(&mut fixed).await?;
    header.extend_from_slice(&fixed);
    let [.., high, low] = fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > BINARY_REST_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    header.resize(BINARY_FIXED_BYTES + rest, 0);
    let rest = header.get_mut(BINARY_FIXED_BYTES..).unwrap_or_default();
    stream.read_exact(rest).await?;
    Ok(())
}

fn parse(header: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: true,
    };
    let (parsed, length) =
        ProxyHeader::parse(header, config).map_err(|_| HeaderError::Malformed)?;
    if length != header.len() {
        return Err(HeaderError::Malformed);
    }
    match parsed.proxied_address() {
        None => Ok(None),
        Some(named) if named.protocol == Protocol::Stream => Ok(Some(named.source.ip())),
        Some(_) => Err(HeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;

    use super::*;

    fn binary(source: &str) -> Vec<u8> {
        let source = source.parse().unwrap();
        let named = ProxiedAddress::stream(source, source);
        let mut bytes = Vec::new();
        ProxyHeader::with_address(named)
            .encode_v2(&mut bytes)
            .unwrap();
        bytes
    }

    async fn take(mut bytes: &[u8]) -> (Result<Option<IpAddr>, HeaderError>, &[u8]) {
        let read = read(&mut bytes).await;
        (read, bytes)
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        for (mut header, client) in [
            (binary("192.0.2.1:1000"), "192.0.2.1"),
            (binary("[2001:db8::1]:1000"), "2001:db8::1"),
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n".to_vec(),
                "192.0.2.1",
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n".to_vec(),
                "2001:db8::1",
            ),
        ] {
            header.extend_from_slice(b"\x16\x03\x01");

            let (read, rest) = take(&header).await;

            assert_eq!(read.unwrap(), Some(client.parse().unwrap()));
            assert_eq!(rest, b"\x16\x03\x01");
        }
    }

    #[tokio::test]
    async fn a_proxy_may_speak_for_itself() {
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

        assert_eq!(take(local).await.0.unwrap(), None);
        assert_eq!(take(b"PROXY UNKNOWN\r\n").await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn a_header_that_is_cut_off_anywhere_names_nobody() {
        for header in [
            binary("192.0.2.1:1000"),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n".to_vec(),
        ] {
            for length in 0..header.len() {
                let cut = header.get(..length).unwrap();

                assert!(matches!(take(cut).await.0, Err(HeaderError::Read(_))));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_without_reading_on() {
        let client_hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 4096]].concat();
        let long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x04\x01".to_vec();
        let datagram =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x01";

        assert!(matches!(
            take(client_hello).await.0,
            Err(HeaderError::Missing)
        ));
        let (read, rest) = take(&endless).await;
        assert!(matches!(read, Err(HeaderError::TooLong)));
        assert_eq!(rest.len(), endless.len() - TEXT_BYTES_MAX);
        assert!(matches!(take(&long).await.0, Err(HeaderError::TooLong)));
        for malformed in [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 99999\r\n".as_slice(),
            b"PROXY SMTP 192.0.2.1 192.0.2.2 1000 443\r\n",
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0",
            datagram,
        ] {
            assert!(matches!(
                take(malformed).await.0,
                Err(HeaderError::Malformed)
            ));
        }
    }
}
