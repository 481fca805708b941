about="PostgreSQL, Redis and the disk break under traffic, one by one; options: --pause SECONDS (20), --only services|disk"
packages=(strace:strace "${SERVICES[@]}")

run() { testkit commucat-faults "$@"; }
