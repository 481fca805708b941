"""Prints a CycloneDX 1.5 bill of materials of the three programs, from Cargo.lock: `ops/sbom.py VERSION`."""

import json
import subprocess
import sys

PROGRAMS = ("commucat-server", "commucat-cli", "commucat-client")


def main() -> None:
    version = sys.argv[1]
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
            check=True,
            capture_output=True,
        ).stdout
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    roots = [id for id, package in packages.items() if package["name"] in PROGRAMS]
    edges = {}
    waiting = list(roots)
    while waiting:
        id = waiting.pop()
        if id in edges:
            continue
        # Dependencies of tests are in no program.
        edges[id] = sorted(
            dependency["pkg"]
            for dependency in nodes[id]["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        )
        waiting += edges[id]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "commucat", "version": version, "bom-ref": "commucat"}},
        "components": [component(packages[id]) for id in sorted(edges)],
        "dependencies": [{"ref": "commucat", "dependsOn": [url(packages[id]) for id in sorted(roots)]}]
        + [{"ref": url(packages[id]), "dependsOn": [url(packages[to]) for to in edges[id]]} for id in sorted(edges)],
    }
    json.dump(document, sys.stdout, indent=1)


def component(package: dict) -> dict:
    found = {
        "type": "library",
        "bom-ref": url(package),
        "name": package["name"],
        "version": package["version"],
        "purl": url(package),
    }
    if package["name"] == "h2":
        found["pedigree"] = {"patches": [{"type": "unofficial", "diff": {"url": "ops/h2-buffers.diff"}}]}
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return found


def url(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


if __name__ == "__main__":
    main()
