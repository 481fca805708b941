about="a Python client written from docs/PROTOCOL.md, against a real server, on both stores and on three nodes; option for one run: --backend sqlite|postgres|nodes"
packages=("${SERVICES[@]}")

run() {
  binaries
  local target python backends
  target=$(target_dir)
  python=$(python_with stranger tests/stranger/requirements.txt)
  backends=(sqlite postgres nodes)
  if [ "${1-}" = --backend ]; then
    backends=("$2")
    shift 2
  fi
  export COMMUCAT_SERVER=$target/debug/commucat-server COMMUCAT_CLI=$target/debug/commucat-cli
  for backend in "${backends[@]}"; do
    case $backend in
      sqlite) "$python" -m pytest -q tests/stranger "$@" ;;
      postgres)
        "$target/debug/commucat-services" -- "$python" -m pytest -q tests/stranger "$@"
        ;;
      # Any of three nodes answers a connection.
      nodes)
        TEST_NODES=3 "$target/debug/commucat-services" -- "$python" -m pytest -q tests/stranger "$@"
        ;;
      *) echo "no backend \`$backend\`" >&2 && return 2 ;;
    esac
  done
}
