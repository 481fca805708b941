//! What a command prints on stdout: text for people or one JSON object.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::report::Report;

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    ///
    /// [`Report`] if stdout takes nothing; silent if it was closed.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Report> {
        let mut shown = match self {
            Self::Text => text(value),
            Self::Json => serde_json::to_string_pretty(value)
                .map_err(|_| Report::defect("the result cannot be written as JSON"))?,
        };
        if !shown.ends_with('\n') {
            shown.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(shown.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Lays rows out in columns under a head; the last column is not filled up.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let filled = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let mut line = filled.collect::<Vec<_>>().join("  ").trim_end().to_owned();
        line.push('\n');
        line
    };
    let mut text = line(&head);
    for row in rows {
        text.push_str(&line(&row.each_ref().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "first".to_owned()],
            ["long id".to_owned(), String::new()],
        ];

        assert_eq!(
            table(["ID", "NOTE"], &rows),
            "ID       NOTE\na        first\nlong id\n"
        );
    }
}
