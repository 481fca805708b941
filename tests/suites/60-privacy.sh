about="canaries through every flow, then a search of all that the server keeps, on both stores, on three nodes, and over domains, with all that these tell each other; options for one run: --backend sqlite|postgres, --nodes N, --domains"
packages=("${SERVICES[@]}")

run() {
  testkit commucat-privacy "$@"
  [ $# -gt 0 ] || { testkit commucat-privacy --backend postgres --nodes 3 && testkit commucat-privacy --domains; }
}
