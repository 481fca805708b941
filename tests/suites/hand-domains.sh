about="three domains, traffic, deaths, cuts, changes of the group from everywhere; fails: a client says that messages are missing, cause not settled; option: --seconds N (60)"
packages=("${SERVICES[@]}")

run() { testkit commucat-domains "$@"; }
