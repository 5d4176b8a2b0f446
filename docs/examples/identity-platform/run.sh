#!/bin/bash
# Starts the identity platform of this folder behind koder-gateway, and ends both at Ctrl-C. docs/identity-platform.md goes
# through it. KODER_GATEWAY is the gateway's command, if it is not in the PATH.
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

gateway=${KODER_GATEWAY:-koder-gateway}
page=http://app.localhost:3000/
issuer=https://acme.id.localhost:8443
admin=http://127.0.0.1:9100

refuse() {
    echo "run.sh: $1" >&2
    exit 1
}

for command in "$gateway" node npm openssl; do
    type -P "$command" >/dev/null || refuse "$command is not installed, or not in the PATH"
done
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 19) ? 0 : 1)' ||
    refuse "node is $(node --version): install version 22.19 or newer"

if [[ ! -d node_modules ]]; then
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
fi
if [[ ! -e certs/id.localhost.crt ]]; then
    mkdir -p certs
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=id.localhost \
        -addext 'subjectAltName=DNS:id.localhost,DNS:*.id.localhost' \
        -keyout certs/id.localhost.key -out certs/id.localhost.crt 2>/dev/null
fi
"$gateway" check --config koder-gateway.toml

trap 'exit 0' INT TERM
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
# The program itself: what is called so may only be what starts it, and would not pass on the signal.
"$(node -p process.execPath)" platform.mjs platform.json &
"$gateway" run --config koder-gateway.toml &
until "$gateway" ready --admin "$admin" >/dev/null 2>&1; do
    [[ $(jobs -rp | wc -l) -eq 2 ]] || refuse "the platform or the gateway has ended: its last lines say why"
    sleep 0.2
done

cat <<END
The identity platform runs; Ctrl-C ends it.
In a browser: open $issuer/.well-known/openid-configuration and accept the certificate,
then open $page and log in as ada with the password demo.
In a shell, in $PWD:
  curl --cacert certs/id.localhost.crt $issuer/.well-known/openid-configuration
END
wait -n || true
refuse "the platform or the gateway has ended: its last lines say why"
