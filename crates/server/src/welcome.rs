//! What the operator sees on stdout: the files made and an invite on the first start, and the line
//! that says that the server is there.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use commucat_config::{Config, Registration};
use commucat_proto::id::{DomainKey, Token};
use commucat_proto::link::InviteLink;
use commucat_storage::{NewInvite, Store};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::clock;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::metrics::label::Lifecycle;
use crate::service;
use crate::start::{StartError, places};

/// Accounts that the first invite opens: the operator and the first friends.
const FIRST_INVITE_USES: u32 = 5;
/// How long the first invite lasts.
const FIRST_INVITE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Says hello.
#[derive(Debug)]
pub(crate) struct Welcome {
    config: Arc<Config>,
    domain_key: DomainKey,
}

impl Welcome {
    pub(crate) fn new(config: &Arc<Config>, keys: &Keys) -> Self {
        Self {
            config: Arc::clone(config),
            domain_key: keys.domain_key(),
        }
    }

    /// Names the files made, and makes and shows the first invite.
    pub(crate) async fn greet(&self, store: &Store) -> Result<(), StartError> {
        let config = &self.config;
        let mut text = format!(
            "First start of {}. Made, for this user only:\n  data         {}\n  keys         {}\n  \
             certificate  {}\n",
            config.server.domain.as_str(),
            config.server.data.display(),
            config.keys_path().display(),
            config.tls_certificate_path().display(),
        );
        if config.server.registration == Registration::Invite {
            let mut token = [0; Token::LEN];
            getrandom::fill(&mut token)?;
            let token = Token::new(token);
            let now = clock::now();
            let invite = NewInvite {
                hash: token.hash(),
                uses: FIRST_INVITE_USES,
                expires: now.saturating_add(FIRST_INVITE_LIFE),
            };
            store.create_invite(invite, now).await?;
            let link = InviteLink {
                host: config.endpoint(),
                token,
                domain: config.server.domain.clone(),
                domain_key: self.domain_key,
            };
            text.push_str(&show(&link.to_link()));
        }
        say(&text);
        Ok(())
    }

    /// Says that the ports take connections: they do from the moment that they were opened.
    pub(crate) fn announce(self, metrics: &Metrics) {
        let addresses = &self.config.server.listen;
        metrics.enter(Lifecycle::Serving);
        let endpoint = self.config.endpoint();
        say(&format!(
            "ready https://{} on {}\n",
            endpoint.as_str(),
            places(addresses)
        ));
        service::ready();
    }
}

/// The link in words, as a line to paste, and as a QR code.
fn show(link: &str) -> String {
    let code = QrCode::new(link).map_or_else(
        |_| String::new(),
        |code| {
            let mut renderer = code.render::<Dense1x2>();
            renderer
                .dark_color(Dense1x2::Light)
                .light_color(Dense1x2::Dark)
                .build()
        },
    );
    format!(
        "\nInvite for the first {FIRST_INVITE_USES} accounts, good for 30 days. Whoever has it can \
         join, so treat it like a key:\n\n  commucat join '{link}'\n\n{code}\n\n"
    )
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading; the server serves all the same.
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}
