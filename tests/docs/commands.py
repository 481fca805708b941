"""Runs the shell blocks of README and guides in the order in which a reader meets them: `commands.py PROGRAMS`.

Each block runs in a terminal, a bash that keeps its directory and variables. A mark before a block,
`<!-- test: WORD=VALUE ... -->`, which readers do not see, says what a reader knows without being told:

    in=alice            the terminal (default: that of the block before)
    from=bob            `'commucat:...'` is the contact link that this terminal was shown last
    until="ready"       the last command does not end; go on when the terminal shows this (empty: at once)
    then="bob:hi"       after the block this terminal shows this
    stop=me             the program that runs in this terminal is ended first, as by Ctrl-C
    online=bob,carol    these terminals listen meanwhile
    strangers=dave,...  these write to the reader first, as strangers
    code=laptop         `<code>` is the code that this terminal shows; so `<answer>` with answer=
    shows="stored"      the block must show this
    by="./test demo"    checked elsewhere, by this command
    fails               the block may end with another status than 0

With PICTURE=docs/pictures/client.svg the terminals of README.md are drawn into that file.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import picture

PATIENCE = float(os.environ.get("PATIENCE", "120"))
GUIDES = os.environ.get("GUIDES", "README.md docs/SERVER_GUIDE.md docs/CLIENT_GUIDE.md certs/README.md").split()


class Terminal:
    """A bash that somebody types into."""

    def __init__(self, name: str, directory: Path, environment: dict[str, str]):
        self.name, self.home, self.text, self.count = name, str(directory), "", 0
        # What was typed, with the place in `text` where its output begins.
        self.typed: list[tuple[int, str]] = []
        self.changed = threading.Condition()
        self.bash = subprocess.Popen(
            ["bash", "--norc"], cwd=directory, env=environment, text=True, bufsize=1,
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
                    raise SystemExit(f"terminal {self.name} does not show {pattern!r} after {self.typed[-1:]}:\n{self.text[start:]}")
            return found

    def run(self, code: str, until: str | None) -> tuple[int, str]:
        """Types line by line; the first that fails ends it. Its status, and what was shown."""
        start = len(self.text)
        lines = [line for line in re.sub(r"\\\n", " ", code).splitlines() if line.strip() and not line.startswith("#")]
        for place, line in enumerate(lines):
            begun = len(self.text)
            # Nobody types an answer to a command.
            typed = f"{{ {line}\n}} </dev/null"
            self.typed.append((begun, line))
            if until is not None and place == len(lines) - 1:
                self.bash.stdin.write(f"{typed}\n")
                self.wait(re.escape(until), begun)
                break
            self.count += 1
            self.bash.stdin.write(f"{typed}; echo \"[end {self.count} $?]\"\n")
            found = self.wait(rf"\[end {self.count} (\d+)\]\n", begun)
            if found[1] != "0":
                return int(found[1]), self.text[start:]
        return 0, self.text[start:]

    def interrupt(self) -> None:
        subprocess.run(["pkill", "-INT", "-s", str(self.bash.pid), "commucat"], check=False)
        self.run("true", None)

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
        }
        self.profiles = {"laptop": str(home / "laptop")}

    def terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            profile = {"COMMUCAT_PROFILE": self.profiles[name]} if name in self.profiles else {}
            self.terminals[name] = Terminal(name, self.home, self.environment | profile)
        return self.terminals[name]

    def block(self, mark: dict[str, str], code: str, name: str) -> str:
        """Runs a block; what it showed."""
        self.prepare(mark)
        terminal = self.terminal(name)
        status, text = terminal.run(self.adapted(code, mark), mark.get("until"))
        if status != 0 and "fails" not in mark:
            raise SystemExit(f"terminal {name}: status {status} of\n{code}\n{text}")
        if mark.get("shows") and mark["shows"] not in text:
            raise SystemExit(f"terminal {name} does not show {mark['shows']!r} after\n{code}\n{text}")
        if then := mark.get("then"):
            where, _, what = then.partition(":")
            self.terminal(where).wait(re.escape(what), 0)
        if found := re.findall(r"commucat://[^\s']+#i=[^\s']+", text):
            self.invite = found[0]
        if found := re.findall(r"commucat:[a-z2-7]+@[^\s']+", text):
            self.links[name] = found[-1]
        return text

    def prepare(self, mark: dict[str, str]) -> None:
        """What others do before a block."""
        if "stop" in mark:
            self.terminal(mark["stop"]).interrupt()
        for name in filter(None, mark.get("online", "").split(",")):
            # Who knows the reader already is told so.
            self.terminal(name).run(f"commucat add {shlex.quote(self.links['me'])} --as reader || true", None)
            self.terminal(name).run("commucat listen", "")
        for name in filter(None, mark.get("strangers", "").split(",")):
            link = shlex.quote(self.links["me"])
            status, text = self.terminal(name).run(f"commucat add {link} --as reader\ncommucat send reader hello", None)
            assert status == 0, text
        if mark.get("strangers"):
            count = len(mark["strangers"].split(","))
            waiting = f"until [ $(commucat request list | grep -c .) -ge {count} ]; do :; done"
            self.terminal(mark["in"]).run(waiting, None)

    def adapted(self, code: str, mark: dict[str, str]) -> str:
        """What a reader would put in: the programs are built already, and links are those that were shown."""
        code = re.sub(r"^cargo build --release.*$", "true", code, flags=re.M)
        code = code.replace('export PATH="$PWD/target/release:$PATH"', "true").replace("./target/release/", "")
        code = re.sub(r"'commucat://[^']*\.\.\.'", lambda _: shlex.quote(self.invite), code)
        if "DEVICE" in code:
            code = code.replace("DEVICE", "$(commucat-cli device list | tail -n 1 | cut -d' ' -f1)")
        if "'commucat:...'" in code:
            code = code.replace("'commucat:...'", shlex.quote(self.links[mark["from"]]))
        for name in filter(None, mark.get("strangers", "").split(",")):
            code = code.replace("sc6655e5", re.search(r"commucat:(\w{8})", self.links[name])[1], 1)
        for word in ("code", "answer"):
            if word in mark:
                other = self.terminal(mark[word])
                shown = re.findall(r"[!-~]{40,}", other.text[other.typed[-1][0] :])
                code = code.replace(f"<{word}>", shlex.quote(max(shown, key=len)))
        if "7ixucysc" in code:
            code = code.replace("7ixucysc", self.device(self.terminal("laptop")))
        return code

    def device(self, terminal: Terminal) -> str:
        """The id of the device of a terminal."""
        _, text = terminal.run("commucat --json me", None)
        return re.search(r'"device": ?"(\w{8})', text)[1]

    def end(self) -> None:
        for terminal in self.terminals.values():
            terminal.end()


def walk(path: str, programs: str, root: Path) -> tuple[int, int]:
    """Runs a document; how many blocks ran, and how many are checked elsewhere."""
    ran, elsewhere, name = 0, 0, "reader"
    with tempfile.TemporaryDirectory(prefix="docs-") as place:
        home = Path(place)
        for directory in ("certs", "ops"):
            # A copy: what a reader makes there is no part of the repository.
            shutil.copytree(root / directory, home / directory, ignore=shutil.ignore_patterns("*.pem", "*.key"))
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
            if path == "README.md" and os.environ.get("PICTURE"):
                picture.draw([walker.terminals[name] for name in ("alice", "bob")], Path(os.environ["PICTURE"]))
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
