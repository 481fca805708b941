about="three domains, traffic, deaths, cuts, changes of the group from everywhere; option: --seconds N (60)"
packages=("${SERVICES[@]}")

run() { testkit commucat-domains "$@"; }
