about="the store's contract on both backends, damage and crashes, TLS and safe settings of PostgreSQL"
packages=("${SERVICES[@]}")

# Tests of one package, as the build of the whole workspace made them: cargo would build what it
# depends on a second time for one package alone.
run() {
  local built log program
  built=$(cargo test --quiet --workspace --no-run --message-format=json |
    python3 -c '
import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built["profile"]["test"] and "/storage#" in built["package_id"]:
        print(built["executable"])
')
  log=$(mktemp)
  for program in $built; do
    (cd crates/storage && "$program" "$@") 2>&1 | tee -a "$log"
  done
  awk '/^test result:/ { passed += $4; failed += $6 } END { printf "storage: %d passed, %d failed\n", passed, failed }' "$log"
  rm -f "$log"
}
