"""Draws what terminals showed, as SVG."""

import re
from html import escape
from pathlib import Path

COLUMNS, LINE, WIDTH = 76, 18, 640


def screen(terminal) -> list[tuple[str, bool]]:
    """Lines of a terminal, and whether they were typed."""
    lines = []
    for number, (begin, typed) in enumerate(terminal.typed):
        end = terminal.typed[number + 1][0] if number + 1 < len(terminal.typed) else len(terminal.text)
        lines.append(("$ " + re.sub(r"\s+# .*", "", typed), True))
        for shown in terminal.text[begin:end].splitlines():
            # QR codes are large and say what the line above them says.
            if shown.strip() and not re.search(r"^\[end |[█▀▄]", shown):
                lines.append((shown.replace(terminal.home, "~"), False))
    return [(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…", typed) for line, typed in lines]


def draw(terminals: list, path: Path) -> None:
    parts, top = [], 0
    for terminal in terminals:
        lines = screen(terminal)
        height = (len(lines) + 1) * LINE + 34
        parts.append(f'<rect y="{top}" width="{WIDTH}" height="{height}" rx="8" fill="#1c2128"/>')
        parts.append(f'<text x="16" y="{top + 20}" fill="#8b949e" font-weight="600">{escape(terminal.name)}</text>')
        for number, (line, typed) in enumerate(lines):
            colour = "#7ee787" if typed else "#e6edf3"
            y = top + 44 + number * LINE
            parts.append(f'<text x="16" y="{y}" fill="{colour}" xml:space="preserve">{escape(line)}</text>')
        top += height + 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="monospace" font-size="13">'
    path.write_text("\n".join([head, "<title>A chat in two terminals</title>", *parts, "</svg>"]) + "\n")
