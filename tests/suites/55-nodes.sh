about="three nodes of one domain, traffic and faults; options: --seconds N (60; 600 by hand)"
packages=("${SERVICES[@]}")

run() { testkit commucat-nodes "$@"; }
