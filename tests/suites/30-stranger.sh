about="a Python client written from docs/PROTOCOL.md, against a real server"

run() {
  binaries
  local target python
  target=$(target_dir)
  python=$(python_with stranger tests/stranger/requirements.txt)
  COMMUCAT_SERVER=$target/debug/commucat-server COMMUCAT_CLI=$target/debug/commucat-cli \
    "$python" -m pytest -q tests/stranger "$@"
}
