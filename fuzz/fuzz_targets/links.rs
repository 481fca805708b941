//! Any text as a link: what is read is written, and reads the same again.
#![no_main]

use commucat_proto::link::Link;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(link) = Link::parse(text) else { return };
    let written = match &link {
        Link::Invite(invite) => {
            assert_eq!(Link::parse(&invite.to_page()).as_ref(), Ok(&link));
            invite.to_link()
        }
        Link::Contact(contact) => contact.to_link(),
        Link::Join(join) => join.to_link(),
    };
    assert_eq!(Link::parse(&written), Ok(link));
});
