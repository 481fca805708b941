"""Checks the documents: links and anchors, English and Russian alike, every error title explained, examples current."""

import re
import sys
from pathlib import Path

# What is said twice.
PAIRS = [("README", "README.ru"), ("docs/SERVER_GUIDE", "docs/SERVER_GUIDE.ru"), ("docs/CLIENT_GUIDE", "docs/CLIENT_GUIDE.ru")]
SKIPPED = {"target", ".git", "node_modules"}


def pages() -> list[Path]:
    found = [path for path in Path().rglob("*.md") if not SKIPPED & set(path.parts) and not path.parts[0].startswith(".")]
    assert len(found) > 20, "the documents are not here"
    return found


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def headings(text: str) -> list[tuple[int, str]]:
    return [(len(marks), words) for marks, words in re.findall(r"^(#+) (.*)", prose(text), re.M)]


def anchors(text: str) -> set[str]:
    """As GitHub makes them."""
    found = set()
    for _, words in headings(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while slug + (f"-{number}" if number else "") in found:
            number += 1
        found.add(slug + (f"-{number}" if number else ""))
    return found


def links(text: str) -> list[str]:
    spoken = re.sub(r"`[^`\n]*`", "", prose(text))
    return re.findall(r"\]\(([^)\s]+)\)", spoken)


def check_links(path: Path, wrong: list[str]) -> int:
    text = path.read_text()
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        if not target.exists():
            wrong.append(f"{path}: {link} leads nowhere")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            wrong.append(f"{path}: {link} has no such heading")
    return len(links(text))


def bare(block: str) -> list[str]:
    """A block without its comments, and without words in capitals that stand for something."""
    lines = [re.sub(r"(^|\s+)#( .*|!.*)?$", "", line).rstrip() for line in block.splitlines()]
    return [re.sub(r"<[^>]*>|\b[A-ZА-Я]{3,}\b", "_", line) for line in lines if line]


def check_pair(one: str, other: str, wrong: list[str]) -> None:
    english, russian = (Path(f"{name}.md").read_text() for name in (one, other))
    shapes = [[level for level, _ in headings(text)] for text in (english, russian)]
    if shapes[0] != shapes[1]:
        wrong.append(f"{one}: headings differ from {other}: {shapes}")
    code = [[bare(block) for block in blocks(text)] for text in (english, russian)]
    if len(code[0]) != len(code[1]):
        wrong.append(f"{one}: {len(code[0])} blocks of code, {other}: {len(code[1])}")
    for first, second in zip(*code):
        if first != second:
            wrong.append(f"{one} and {other}: code differs:\n  {first}\n  {second}")
    rows = [[line.count("|") for line in prose(text).splitlines() if line.startswith("|")] for text in (english, russian)]
    if rows[0] != rows[1]:
        wrong.append(f"{one} and {other}: tables differ: {len(rows[0])} and {len(rows[1])} rows")
    markers = [re.findall(r"<!-- test: (.*?) -->", text) for text in (english, russian)]
    led = [[re.sub(r"\.ru\.md|#.*", lambda match: ".md" if match[0] == ".ru.md" else "", link) for link in links(text)] for text in (english, russian)]
    if sorted(set(led[0])) != sorted(set(led[1])):
        wrong.append(f"{one} and {other}: links differ: {set(led[0]) ^ set(led[1])}")
    if markers[1] and markers[0] != markers[1]:
        wrong.append(f"{one} and {other}: marks of the tests differ")


def check_titles(wrong: list[str]) -> int:
    """Every title of an ERROR is explained to operators, in both languages and to authors of clients."""
    source = Path("crates/proto/src/error.rs").read_text()
    titles = re.findall(r'^    \w+, "([^"]+)", "[^"]+", \d+', source, re.M)
    assert len(titles) >= 20, titles
    for name in ("docs/SERVER_GUIDE.md", "docs/SERVER_GUIDE.ru.md", "docs/PROTOCOL.md"):
        rows = [line for line in Path(name).read_text().splitlines() if line.startswith("|")]
        for title in titles:
            if not any(re.search(rf"\b{title}\b", row.split("|")[1]) for row in rows):
                wrong.append(f"{name}: no row explains {title}")
    return len(titles)


def check_settings(wrong: list[str]) -> None:
    """A setting that a document names exists."""
    known = set(re.findall(r"^#(COMMUCAT_\w+)=", Path(".env.sample").read_text(), re.M))
    keys = {re.sub(r"^(\w+?)_", r"\1.", name.removeprefix("COMMUCAT_").lower(), count=1) for name in known}
    groups = {key.split(".")[0] for key in keys}
    for path in [Path(f"{name}.md") for pair in PAIRS for name in pair]:
        for key in re.findall(r"`((?:\w+)\.(?:\w+))`", path.read_text()):
            if key.split(".")[0] in groups and key not in keys | {"server.lisen"} and not key.endswith((".sqlite3", ".sock", ".json", ".lock")):
                wrong.append(f"{path}: no setting {key}")
    for path in Path("ops").rglob("*"):
        if path.is_file() and path.suffix in {".conf", ".cfg", ".service", ".socket"}:
            for key in re.findall(r"\b(\w+\.\w+)\b", path.read_text()):
                if key.split(".")[0] in groups and key not in keys and "commucat" not in key:
                    if key.split(".")[1] not in {"service", "socket", "toml", "pem", "log"}:
                        wrong.append(f"{path}: no setting {key}")


def main() -> None:
    wrong = []
    count = sum(check_links(path, wrong) for path in pages())
    for one, other in PAIRS:
        check_pair(one, other, wrong)
    titles = check_titles(wrong)
    check_settings(wrong)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"docs: {len(pages())} pages, {count} links, {len(PAIRS)} pairs of languages alike, {titles} error titles explained")


if __name__ == "__main__":
    main()
