//! From a host name to a sealed session: TCP, TLS 1.3, HTTP/2, CCP-1 handshake.

pub(crate) mod http;
pub(crate) mod login;
pub(crate) mod session;
pub(crate) mod tls;
