#!/usr/bin/env bash
# Makes a certificate authority for development and a server certificate signed by it.
#   certs/make.sh [DOMAIN] [DIRECTORY]        default: localhost, and this directory
# The authority is made once and used again, so that clients which trust it go on trusting.
set -euo pipefail
domain=${1:-localhost}
place=${2:-$(dirname "$0")}
host=${domain%:[0-9]*}
mkdir -p "$place"
cd "$place"
umask 077

if [ ! -f ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=CommuCat development authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.pem 2>/dev/null
fi

case $host in
  *[!0-9.]*) name="DNS:$host" ;;
  *) name="IP:$host" ;;
esac
case $host in *:*) name="IP:${host//[\[\]]/}" ;; esac
names="$name"
for other in DNS:localhost IP:127.0.0.1 IP:::1; do
  [ "$other" = "$name" ] || names="$names,$other"
done

openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$host" \
  -keyout key.pem -out request.pem 2>/dev/null
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -sha256 \
  -extfile <(
    echo "subjectAltName=$names"
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=serverAuth"
  ) -out leaf.pem 2>/dev/null
cat leaf.pem ca.pem >fullchain.pem
rm -f leaf.pem request.pem
chmod 0644 ca.pem fullchain.pem
echo "made $place/fullchain.pem and key.pem for $names, signed by $place/ca.pem"
