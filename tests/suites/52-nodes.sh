about="three nodes of one domain, traffic, and faults of every kind at random; options: --seconds N (60)"
packages=("${SERVICES[@]}")

run() { testkit commucat-nodes "$@"; }
