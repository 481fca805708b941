//! The server as its clients meet it: TLS, HTTP/2, HTTP/1.1, WebSockets, and the process itself.

#![cfg(test)]

mod handover;
mod harness;
mod http1;
mod http2;
mod process;
mod proxy;
mod rest;
mod tls;
