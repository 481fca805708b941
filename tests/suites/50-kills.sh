about="kill -9 of the server under traffic; options: --cycles N (10)"
packages=(strace:strace)

run() { testkit commucat-kills "$@"; }
