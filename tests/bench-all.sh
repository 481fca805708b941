#!/usr/bin/env bash
# Measures every row of docs/BENCHMARKS.md, with programs built as those of packages, and prints its table
# as Markdown: median, range and number of runs; the floors and NATS (Debian: nats-server) in turn with the
# server. Takes eight minutes after the build; the machine should do nothing else. `--runs N` (5), `--quick`
# (one run of each, 0.5 s: only to see that all of it works), `--keep FILE` keeps every run as a line of JSON.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=5 duration=2 keep=
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=$2 && shift 2 ;;
    --quick) runs=1 duration=0.5 && shift ;;
    --keep) keep=$2 && shift 2 ;;
    *) echo "usage: $0 [--runs N] [--quick] [--keep FILE]" >&2 && exit 2 ;;
  esac
done

ops/build.sh --quiet -p commucat-server -p commucat-bench
bench=$(cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/dist/commucat-bench
lines=${keep:-$(mktemp)}
: >"$lines"

# run TITLE COUNT PEER ARGS...: so many runs, each a line with its title, peer and command.
run() {
  local title=$1 count=$2 peer=$3 line
  shift 3
  [ "$runs" -gt 1 ] || count=1
  for _ in $(seq "$count"); do
    if line=$("$bench" "$@" --peer "$peer" --json 2>/dev/null); then
      printf '{"title": "%s", "command": "commucat-bench %s", "peer": "%s", "row": %s}\n' \
        "$title" "$*" "$peer" "$line" >>"$lines"
    else
      echo "$title against $peer does not run" >&2
    fi
  done
}

# Peers in turn, so that what the machine does meanwhile meets all of them.
compared() {
  local title=$1 round
  shift
  for round in $(seq "$runs"); do
    run "$title" 1 commucat "$@"
    # They vary little.
    [ "$round" -gt 3 ] && continue
    run "$title" 1 relay "$@"
    [ "$1" = fanout ] || run "$title" 1 relay-acked "$@"
    if command -v nats-server >/dev/null; then run "$title" 1 nats "$@"; fi
  done
}

compared "pairs, 128 outstanding" pairs --duration "$duration"
compared "pairs, 1 outstanding" pairs --outstanding 1 --duration "$duration"
compared "fanout, 1 to 100" fanout --duration "$duration"
compared "latency, 500 a second" latency --duration "$duration"
run "offline" 3 commucat offline
run "drain" 3 commucat drain
run "offline on PostgreSQL" 3 commucat offline --backend postgres
run "drain on PostgreSQL" 3 commucat drain --backend postgres
run "nodes" 3 commucat nodes --duration "$duration"
run "nodes, same" 2 commucat nodes --same-node --duration "$duration"
run "federation" 2 commucat federation --duration "$duration"
run "federation, 500 a second" 3 commucat federation --rate 500 --duration "$duration"
run "start, 1,000,000" 1 commucat start
run "churn" 3 commucat churn
run "idle, 1,000" 3 commucat idle
[ "$runs" -gt 1 ] && run "idle, 5,000" 1 commucat idle --devices 5000

python3 - "$lines" <<'PYTHON'
import json, statistics, sys

def show(values):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    text = f"{statistics.median(values):.2f}"
    if len(values) > 1:
        text += f" ({min(values):.2f}-{max(values):.2f}, {len(values)} runs)"
    return text

rows = {}
with open(sys.argv[1]) as lines:
    for line in map(json.loads, lines):
        group = rows.setdefault(line["title"], {"command": line["command"]})
        group.setdefault(line["peer"], []).append(line["row"])

PEERS = ("commucat", "relay", "relay-acked", "nats")
COST, WRITES = "server_cpu_us_per_delivery", "socket_writes_per_delivery"
FIELDS = [(COST, "us"), (WRITES, "writes"), ("p50_us", "p50, us"), ("p99_us", "p99, us"),
          ("database_cpu_us_per_delivery", "database, us"), ("redis_cpu_us_per_delivery", "Redis, us"), ("start_ms", "ms"),
          ("idle_kib_per_connection", "KiB each"), ("generator_full", None)]
SHOWN = {"latency, 500 a second": ["p50_us", "p99_us", COST], "idle, 1,000": ["idle_kib_per_connection"],
         "idle, 5,000": ["idle_kib_per_connection"], "pairs, 1 outstanding": [COST],
         "federation, 500 a second": ["p50_us", "p99_us", COST], "federation": [COST, WRITES],
         "churn": [COST], "offline": [COST], "drain": [COST]}
print("| command | figure | commucat | floor | floor, acknowledged | NATS core |\n|---|---|---|---|---|---|")
for title, group in rows.items():
    for field, unit in FIELDS:
        if field not in SHOWN.get(title, [COST, WRITES, "database_cpu_us_per_delivery", "redis_cpu_us_per_delivery", "start_ms"]):
            continue
        of = lambda peer: show([row.get(field) for row in group.get(peer, [])])
        if all(of(peer) == "-" for peer in PEERS):
            continue
        print(f"| `{group['command']}` | {unit} | " + " | ".join(map(of, PEERS)) + " |")
every = [row for group in rows.values() for row in group.get("commucat", [])]
print(f"\nOf {len(every)} runs: {sum(row['lost'] for row in every)} messages lost, "
      f"{sum(row['twice'] for row in every)} came twice; fsyncs with both ends there: "
      + str(sum(row["fsyncs"] for row in every if row["scenario"] in ("pairs", "fanout", "latency"))) + ".")
PYTHON
