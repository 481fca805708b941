about="kill -9 of the server under traffic, on both stores and of three nodes; options for one run: --cycles N (10), --backend sqlite|postgres, --nodes N"
packages=(strace:strace "${SERVICES[@]}")

run() {
  testkit commucat-kills "$@"
  [ $# -gt 0 ] && return
  testkit commucat-kills --backend postgres --cycles 4 --messages 2000
  testkit commucat-kills --backend postgres --nodes 3
}
