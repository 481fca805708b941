about="canaries through every flow, then a search of all that the server keeps, on both stores and on three nodes; options for one run: --backend sqlite|postgres, --nodes N"
packages=("${SERVICES[@]}")

run() {
  testkit commucat-privacy "$@"
  [ $# -gt 0 ] || testkit commucat-privacy --backend postgres --nodes 3
}
