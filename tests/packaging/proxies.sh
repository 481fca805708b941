# A chat through nginx and HAProxy, and a search of what they know afterwards.

check_proxies() { testkit commucat-proxies; }
