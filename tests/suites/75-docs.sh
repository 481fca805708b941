about="every command of README and guides in a reader's order, links, both languages, lists made from code"
packages=(openssl:openssl unshare:util-linux ip:iproute2 sqlite3:sqlite3 jq:jq pkill:procps curl:curl)

# ./test docs [PART]...: pages, commands
run() {
  local parts=("$@") part
  [ ${#parts[@]} -gt 0 ] || parts=(pages commands)
  for part in "${parts[@]}"; do
    case $part in
      pages) python3 tests/docs/pages.py ;;
      commands) commands ;;
      *) echo "no part \`$part\`" >&2; return 2 ;;
    esac
  done
}

# In a network of its own, so that port 8443 is free and every name leads to this machine.
commands() {
  binaries
  local programs
  programs=$(target_dir)/debug
  apart python3 tests/docs/commands.py "$programs"
  # It must see a command that fails, and one that does not say what was promised.
  local planted
  for planted in tests/docs/planted-*.md; do
    if GUIDES=$planted PATIENCE=20 apart python3 tests/docs/commands.py "$programs" >/dev/null 2>&1; then
      echo "$planted passes" >&2
      return 1
    fi
  done
}

apart() {
  unshare --net --mount bash -c 'ip link set lo up && exec "$@"' -- "$@"
}
