about="every crate's own tests, but the store's"
packages=("${SERVICES[@]}")

run() {
  # The CLI's tests run it beside the real server and client.
  binaries
  local log
  log=$(mktemp)
  cargo test --workspace --exclude commucat-storage "$@" 2>&1 | tee "$log"
  awk '/^test result:/ { passed += $4; failed += $6 } END { printf "unit: %d passed, %d failed\n", passed, failed }' "$log"
  rm -f "$log"
}
