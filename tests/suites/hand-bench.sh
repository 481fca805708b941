about="instructions of single pieces of the message path, against crates/bench/benches/baseline.txt; options: --write"
packages=(valgrind:valgrind)

# More than so many parts of a hundred above the baseline fail.
TOLERANCE=5

# Instructions that `cost CASE COUNT` executes.
instructions() {
  valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null "$@" 2>&1 |
    awk '/I *refs:/ { gsub(",", "", $NF); print $NF }'
}

run() {
  local baseline=crates/bench/benches/baseline.txt program name few many new="" old per failed=0
  program=$(cargo bench --quiet -p commucat-server -p commucat-bench --bench cost --no-run --message-format=json |
    python3 -c 'import json, sys
for line in map(json.loads, sys.stdin):
    if line.get("target", {}).get("name") == "cost" and line.get("executable"): print(line["executable"])')
  # With two counts what starting costs drops out.
  while read -r name few many; do
    per=$((($(instructions "$program" "$name" "$many") - $(instructions "$program" "$name" "$few")) / (many - few)))
    new+="$name $per"$'\n'
    old=$(awk -v name="$name" '$1 == name { print $2 }' "$baseline" 2>/dev/null || true)
    printf '%-8s %8d instructions, baseline %s\n' "$name" "$per" "${old:-none}"
    if [ -n "$old" ] && [ $((per * 100)) -gt $((old * (100 + TOLERANCE))) ]; then
      failed=1
    fi
  done <<'CASES'
codec 2000 12000
tunnel 2000 12000
fanout 5000 45000
custody 5000 45000
spool 1280 6400
CASES
  if [ "${1-}" = --write ]; then
    { echo "# Instructions an item under valgrind, by $(rustc --version). Written by ./test bench --write"
      printf '%s' "$new"; } >"$baseline"
  elif ! grep -qF "$(rustc --version)" "$baseline"; then
    echo "the baseline is of another compiler: nothing is compared"
  elif [ "$failed" = 1 ]; then
    echo "more than $TOLERANCE in a hundred above the baseline; if it is meant: ./test bench --write" >&2
    return 1
  fi
}
