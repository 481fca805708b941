//! Links as QR codes of half blocks.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// Draws `text` for a dark terminal; `None` if it is too long for a code.
pub(crate) fn draw(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    Some(
        renderer
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    )
}
