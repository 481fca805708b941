about="three nodes of one domain, traffic and faults; fails where PostgreSQL is killed; options: --seconds N (60)"
packages=("${SERVICES[@]}")

run() { testkit commucat-nodes "$@"; }
