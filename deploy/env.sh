#!/bin/sh
# Make .env for docker-compose.yml with a new vault key, readable by its owner alone.
# The key's id says loudly that it is for development: production keys come from a secret store.
set -eu
cd "$(dirname "$0")/.."
if [ -f .env ] && grep -q '^PENSTOCK_VAULT_KEYS=.' .env; then
  echo ".env has a vault key already; left as it is"
  exit 0
fi
umask 077
key=$(head -c 32 /dev/urandom | base64 | tr -d '\n')
echo "PENSTOCK_VAULT_KEYS=INSECURE-DEVELOPMENT-ONLY:${key}" >>.env
chmod 600 .env
echo "wrote a development vault key to .env; whoever has it can read the personal data in every retained record"
