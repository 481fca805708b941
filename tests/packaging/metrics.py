"""Compares docs/METRICS.md with what a server exports, and both with dashboard and alert rules: `metrics.py SCRAPED`."""

import json
import re
import sys
from pathlib import Path


def documented() -> dict[str, dict[str, set[str]]]:
    """Names of series with the values of their labels, as the page lists them."""
    found = {}
    for line in Path("docs/METRICS.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `commucat_"):
            continue
        labels = {}
        for part in filter(None, cells[3].split(";")):
            label, values = part.split(":")
            labels[label.strip(" `")] = {value.strip() for value in values.split(",")}
        name, *suffixes = re.findall(r"`([^`]+)`", cells[0])
        found[name] = labels
        for suffix in suffixes:
            found[name.removesuffix("_bucket") + suffix] = labels
    return found


def exported(text: str) -> dict[str, dict[str, set[str]]]:
    found = {}
    for line in text.splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? [-+0-9.eE]+$", line)
        if not match:
            continue
        labels = found.setdefault(match[1], {})
        for label, value in re.findall(r'(\w+)="([^"]*)"', match[2] or ""):
            if label != "le":
                labels.setdefault(label, set()).add(value)
    return found


def used() -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Series that dashboard and rules ask for, with the label values that they name."""
    dashboard = json.loads(Path("ops/monitoring/dashboard.json").read_text())
    texts = [("dashboard", target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    rules = Path("ops/monitoring/alerts.yml").read_text()
    texts += [("alerts", line) for line in re.findall(r"expr: (.*)", rules)]
    found = {}
    for where, text in texts:
        for name, labels in re.findall(r"(commucat_\w+)(?:\{([^}]*)\})?", text):
            pairs = dict(re.findall(r'(\w+)=~?"([^"]*)"', labels))
            pairs.pop("instance", None)
            found.setdefault(name, []).append((where, pairs))
    return found


def main() -> None:
    page, server, wanted = documented(), exported(Path(sys.argv[1]).read_text()), used()
    wrong = [f"{name}: on the page, not exported" for name in page.keys() - server.keys()]
    wrong += [f"{name}: exported, not on the page" for name in server.keys() - page.keys()]
    for name in page.keys() & server.keys():
        if page[name] != server[name]:
            wrong.append(f"{name}: labels {page[name]} on the page, {server[name]} exported")
    for name, uses in wanted.items():
        for where, pairs in uses:
            if name not in page:
                wrong.append(f"{name}: asked for by the {where}, not exported")
                continue
            for label, values in pairs.items():
                unknown = set(values.split("|")) - page[name].get(label, set())
                if unknown:
                    wrong.append(f"{name}: {label} has no {unknown}, asked for by the {where}")
    if wrong or len(page) < 20 or len(wanted) < 15:
        sys.exit("\n".join(wrong) or "too little was found to compare")
    print(f"packaging: monitoring: {len(page)} series documented and exported, {len(wanted)} used by dashboard and alerts")


if __name__ == "__main__":
    main()
