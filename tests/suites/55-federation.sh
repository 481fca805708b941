about="three domains: contacts, groups, kills of either side, order and nothing lost"

run() { testkit commucat-federation "$@"; }
