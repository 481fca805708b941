//! The tables of the code are those of `docs/PROTOCOL.md`.

use std::path::Path;

use commucat_proto::error::{GoesOn, Title};
use commucat_proto::frame::{Direction, FrameType, Number, Phase};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROTOCOL.md");
    std::fs::read_to_string(path).unwrap()
}

/// The cells of each row of a table whose second cell is a number.
fn table_rows(document: &str, is_number: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    document
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(str::trim)
                .collect::<Vec<_>>()
        })
        .filter(|cells| cells.len() > 2 && is_number(cells[1]))
        .collect()
}

#[test]
fn the_table_of_frames_is_that_of_the_document() {
    let document = document();
    let rows = table_rows(&document, |cell| cell.starts_with("0x") && cell.len() == 4);

    assert_eq!(rows.len(), FrameType::ALL.len());
    for (row, kind) in rows.iter().zip(FrameType::ALL) {
        assert_eq!(row[0], kind.name());
        assert_eq!(row[1], format!("{:#04x}", kind.code()));
        assert_eq!(FrameType::of_code(kind.code()), Some(*kind));
        if *kind == FrameType::Grant {
            continue;
        }
        let travels = |direction| {
            kind.travels(direction, Phase::Clear) || kind.travels(direction, Phase::Tunnel)
        };
        let direction = match (travels(Direction::Up), travels(Direction::Down)) {
            (true, true) => "both",
            (true, false) => "c->s",
            (false, true) => "s->c",
            (false, false) => "none",
        };
        assert_eq!(row[2], direction, "{}", kind.name());
        let takes_none = row[3] == "0";
        assert_eq!(takes_none, kind.number() == Number::Zero, "{}", kind.name());
    }
}

#[test]
fn the_table_of_errors_is_that_of_the_document() {
    let document = document();
    let rows = table_rows(&document, |cell| {
        matches!(cell.len(), 3) && cell.parse::<u16>().is_ok()
    });

    assert_eq!(rows.len(), Title::ALL.len());
    for (row, title) in rows.iter().zip(Title::ALL) {
        assert_eq!(row[0], title.as_str());
        assert_eq!(row[1], title.status().to_string(), "{}", title.as_str());
        let never = row[2] == "no";
        assert_eq!(
            never,
            title.goes_on() == GoesOn::Never,
            "{}",
            title.as_str()
        );
    }
}
