"""Runs the shell blocks of README and guides in the order in which a reader meets them: `commands.py PROGRAMS`.

Each block runs in a terminal, a bash that keeps its directory and variables. A mark before a block,
`<!-- test: WORD=VALUE ... -->`, which readers do not see, says what a reader knows without being told:

    in=alice            the terminal (default: that of the block before)
    from=bob            `'commucat:...'` is the contact link that this terminal was shown last
    until="ready"       the last command does not end; go on when the terminal shows this
    shows="stored"      the block must show this
    by="./test demo"    checked elsewhere, by this command
    fails               the block may end with another status than 0
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PATIENCE = 120.0
GUIDES = ["README.md", "docs/SERVER_GUIDE.md", "docs/CLIENT_GUIDE.md", "certs/README.md"]


class Terminal:
    """A bash that somebody types into."""

    def __init__(self, name: str, directory: Path, environment: dict[str, str]):
        self.name, self.text, self.count = name, "", 0
        self.changed = threading.Condition()
        self.bash = subprocess.Popen(
            ["bash", "--norc"], cwd=directory, env=environment, text=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while chunk := os.read(self.bash.stdout.fileno(), 65536):
            with self.changed:
                self.text += chunk.decode(errors="replace")
                self.changed.notify_all()

    def wait(self, pattern: str, start: int) -> re.Match:
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while not (found := re.search(pattern, self.text[start:])):
                if not self.changed.wait(timeout=deadline - time.monotonic()):
                    raise SystemExit(f"terminal {self.name} does not show {pattern!r}:\n{self.text[start:]}")
            return found

    def run(self, code: str, until: str | None) -> tuple[int, str]:
        start = len(self.text)
        if until:
            self.bash.stdin.write(f"{code}\n".encode().decode())
            self.wait(re.escape(until), start)
            return 0, self.text[start:]
        self.count += 1
        # As if each line were typed: the first that fails ends the block.
        quoted = shlex.quote(code)
        self.bash.stdin.write(f"set -e; trap 'set +e' ERR; eval {quoted} </dev/null; set +e; echo \"[end {self.count} $?]\"\n")
        found = self.wait(rf"\[end {self.count} (\d+)\]\n", start)
        return int(found[1]), self.text[start:]

    def end(self) -> None:
        # Whatever still runs in it belongs to its session.
        subprocess.run(["pkill", "-TERM", "-s", str(self.bash.pid)], check=False)
        self.bash.wait(timeout=PATIENCE)


def blocks(text: str) -> list[tuple[dict[str, str], str]]:
    """Shell blocks with the mark before them."""
    found = re.findall(r"(?:<!-- test: (.*?) -->\n)?^```sh\n(.*?)^```", text, re.M | re.S)
    marked = []
    for mark, code in found:
        words = dict(word.partition("=")[::2] for word in shlex.split(mark))
        marked.append((words, code))
    return marked


class Walk:
    """One document, walked through by its reader."""

    def __init__(self, programs: str, home: Path, root: Path):
        self.home, self.root, self.programs = home, root, programs
        self.terminals: dict[str, Terminal] = {}
        self.links: dict[str, str] = {}
        self.invite = ""
        self.environment = {
            "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "LANG": "C.UTF-8", "NO_COLOR": "1",
            "COMMUCAT_DOCS": str(root),
        }

    def terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            self.terminals[name] = Terminal(name, self.home, self.environment)
        return self.terminals[name]

    def block(self, mark: dict[str, str], code: str, name: str) -> str:
        """Runs a block; what it showed."""
        terminal = self.terminal(name)
        status, text = terminal.run(self.adapted(code, mark.get("from", "")), mark.get("until"))
        if status != 0 and "fails" not in mark:
            raise SystemExit(f"terminal {name}: status {status} of\n{code}\n{text}")
        if mark.get("shows") and mark["shows"] not in text:
            raise SystemExit(f"terminal {name} does not show {mark['shows']!r} after\n{code}\n{text}")
        if found := re.findall(r"commucat://[^\s']+#i=[^\s']+", text):
            self.invite = found[0]
        if found := re.findall(r"commucat:[a-z2-7]+@[^\s']+", text):
            self.links[name] = found[-1]
        return text

    def adapted(self, code: str, other: str) -> str:
        """What a reader would put in: the programs are built already, and links are those that were shown."""
        code = re.sub(r"^cargo build --release.*$", "true", code, flags=re.M)
        code = code.replace('export PATH="$PWD/target/release:$PATH"', "true").replace("./target/release/", "")
        code = re.sub(r"'commucat://[^']*\.\.\.'", lambda _: shlex.quote(self.invite), code)
        if "'commucat:...'" in code:
            code = code.replace("'commucat:...'", shlex.quote(self.links[other]))
        return code

    def end(self) -> None:
        for terminal in self.terminals.values():
            terminal.end()


def walk(path: str, programs: str, root: Path) -> tuple[int, int]:
    """Runs a document; how many blocks ran, and how many are checked elsewhere."""
    ran, elsewhere, name = 0, 0, "reader"
    with tempfile.TemporaryDirectory(prefix="docs-") as place:
        home = Path(place)
        for directory in ("certs", "ops"):
            (home / directory).symlink_to(root / directory)
        walker = Walk(programs, home, root)
        try:
            prelude = Path(f"tests/docs/{Path(path).stem.lower()}.prelude.md")
            texts = [prelude.read_text()] if prelude.exists() else []
            for part, text in enumerate(texts + [Path(path).read_text()]):
                for mark, code in blocks(text):
                    if "by" in mark:
                        check_elsewhere(mark["by"])
                        elsewhere += 1
                        continue
                    name = mark.get("in", name)
                    walker.block(mark, code, name)
                    ran += part == len(texts)
        except SystemExit as error:
            raise SystemExit(f"{path}: {error}") from None
        finally:
            walker.end()
    return ran, elsewhere


def check_elsewhere(command: str) -> None:
    """The suite that is said to check a block exists."""
    suite = re.match(r"\./test (\w+)", command)
    if not suite or not list(Path("tests/suites").glob(f"*-{suite[1]}.sh")):
        raise SystemExit(f"nothing checks what is said to be checked by {command}")


def hosts(home: Path) -> None:
    """The names of the documents lead to this machine."""
    names = home / "hosts"
    names.write_text("127.0.0.1 localhost chat.example.org chat.test\n::1 localhost\n")
    subprocess.run(["mount", "--bind", str(names), "/etc/hosts"], check=True)


def main() -> None:
    programs, root = sys.argv[1], Path.cwd()
    with tempfile.TemporaryDirectory(prefix="docs-") as place:
        hosts(Path(place))
        ran = [walk(path, programs, root) for path in GUIDES]
        subprocess.run(["umount", "/etc/hosts"], check=True)
    print(f"docs: {sum(count for count, _ in ran)} blocks of commands ran in {len(GUIDES)} documents, {sum(count for _, count in ran)} are checked by other suites")


if __name__ == "__main__":
    main()
