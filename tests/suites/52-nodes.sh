about="nodes of one domain: common limits, the right to send elsewhere, three under traffic and faults at random; options: --seconds N (60), --only limits|lease|faults"
packages=("${SERVICES[@]}")

run() { testkit commucat-nodes "$@"; }
