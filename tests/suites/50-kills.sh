about="kill -9 of the server under traffic, on both stores; options for one run: --cycles N (10), --backend sqlite|postgres"
packages=(strace:strace "${SERVICES[@]}")

run() {
  testkit commucat-kills "$@"
  [ $# -gt 0 ] || testkit commucat-kills --backend postgres --cycles 4 --messages 2000
}
