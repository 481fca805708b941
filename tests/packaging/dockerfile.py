"""Reads a Dockerfile and prints what an engine would run, as shell for a chroot: `dockerfile.py WHAT DOCKERFILE ...`."""

import json
import re
import shlex
import sys
from pathlib import Path


def instructions(path: str) -> list[tuple[str, str]]:
    lines = [line for line in Path(path).read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages(path: str) -> list[list[tuple[str, str]]]:
    found = []
    for name, rest in instructions(path):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def last(path: str, name: str) -> str:
    return [rest for own, rest in stages(path)[-1] if own == name][-1]


def build(path: str, programs: str, image: str) -> None:
    """The RUN steps of the first stage but those that install compilers and compile."""
    steps = [step.strip() for name, rest in stages(path)[0] if name == "RUN" for step in rest.split("&&")]
    kept = [step for step in steps if not re.match(r"apt-get|rm -rf /var/lib/apt|ops/build", step)]
    compiled = [step for step in steps if step.startswith("ops/build.sh")]
    assert compiled and len(kept) >= 3, steps
    print(f"work=$(mktemp -d); mkdir -p $work/target/dist; cp {programs}/commucat-server {programs}/commucat-cli $work/target/dist/")
    print("cp LICENSE README.md CHANGELOG.md $work/; cd $work")
    for step in kept:
        print(re.sub(r"(?<![\w/])/image", image, step))
    copied = last(path, "COPY")
    assert copied.split() == ["--from=build", "/image", "/"], copied


def environment(path: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(last(path, "ENV")))


def chroot(path: str, root: str, command: list[str], extra: dict[str, str]) -> str:
    variables = environment(path) | extra
    words = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/bin"] + [f"{name}={value}" for name, value in variables.items()]
    change = ["chroot", f"--userspec={last(path, 'USER').strip()}", root]
    inside = f"cd {shlex.quote(last(path, 'WORKDIR').strip())} && exec {shlex.join(command)}"
    return shlex.join(words + change + ["/bin/sh", "-c", inside])


def main() -> None:
    what, path, *rest = sys.argv[1:]
    if what == "build":
        build(path, *rest)
    elif what == "user":
        print(last(path, "USER"))
    elif what == "entrypoint":
        assert last(path, "STOPSIGNAL") == "SIGTERM"
        # The machine's port 8443 may be taken.
        print(chroot(path, rest[0], json.loads(last(path, "ENTRYPOINT")), {"COMMUCAT_SERVER_LISTEN": f"127.0.0.1:{rest[1]}"}))
    elif what == "healthcheck":
        command = json.loads(last(path, "HEALTHCHECK").split("CMD", 1)[1])
        print(chroot(path, rest[0], command, {"COMMUCAT_SERVER_LISTEN": f"127.0.0.1:{rest[1]}"}))
    elif what == "variables":
        known = set(re.findall(r"^#(COMMUCAT_\w+)=", Path(".env.sample").read_text(), re.M))
        texts = Path(path).read_text() + Path(rest[0]).read_text()
        used = set(re.findall(r"(COMMUCAT_[A-Z]+_\w+)[:=]", texts))
        unknown = used - known
        assert used and not unknown, f"no such setting: {unknown}"


if __name__ == "__main__":
    main()
