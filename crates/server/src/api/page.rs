//! Two pages for people: what this is, and what to do with an invite. They load nothing, keep
//! nothing, and an invite's token stays in the browser: it is behind the `#`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::Public;

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/invite.js");
const HOME: &str = include_str!("page/home.html");
const INVITE: &str = include_str!("page/invite.html");

/// The pages with everything in them, and the policy that allows only that.
#[derive(Debug)]
pub(super) struct Pages {
    home: Bytes,
    invite: Bytes,
    policy: String,
}

impl Pages {
    /// The pages of `domain`, whose characters are letters, digits, `-.:[]`.
    pub(super) fn new(domain: &str) -> Self {
        let fill = |page: &str| {
            let filled = page
                .replace("{{style}}", STYLE)
                .replace("{{script}}", SCRIPT)
                .replace("{{domain}}", domain);
            Bytes::from(filled)
        };
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source(STYLE),
            source(SCRIPT)
        );
        Self {
            home: fill(HOME),
            invite: fill(INVITE),
            policy,
        }
    }
}

/// The hash by which a content security policy knows an inline text.
fn source(text: &str) -> String {
    let mut quoted = String::from("'sha256-");
    if let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() {
        let hash = suite.common.hash_provider.hash(text.as_bytes());
        let _infallible = write!(quoted, "{}", BASE64.encode_display(hash.as_ref()));
    }
    quoted.push('\'');
    quoted
}

pub(crate) async fn home(State(public): State<Public>) -> Response {
    show(&public, public.0.pages.home.clone())
}

pub(crate) async fn invite(State(public): State<Public>) -> Response {
    show(&public, public.0.pages.invite.clone())
}

fn show(public: &Public, page: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, public.0.pages.policy.as_str()),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_load_nothing_from_elsewhere() {
        let pages = Pages::new("chat.example.org");

        for page in [&pages.home, &pages.invite] {
            let text = std::str::from_utf8(page).unwrap();
            for loader in [
                "src=", "@import", "url(", "<link", "fetch(", "XMLHttp", "{{",
            ] {
                assert!(!text.contains(loader), "{loader}");
            }
            assert!(text.contains("chat.example.org"));
        }
    }

    #[test]
    fn the_policy_names_the_hash_of_the_style() {
        // printf '' | openssl dgst -sha256 -binary | base64
        assert_eq!(
            source(""),
            "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
        );
    }
}
