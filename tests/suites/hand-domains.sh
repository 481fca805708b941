about="three domains, traffic, deaths, cuts, changes of the group from everywhere; fails where a message that was sealed again comes late; option: --seconds N (60)"
packages=("${SERVICES[@]}")

run() { testkit commucat-domains "$@"; }
