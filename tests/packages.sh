#!/bin/sh
# Installs the Debian or Ubuntu packages named as arguments that are not there yet, with sudo when not root. Elsewhere it
# prints their names and stops.
set -eu

missing=
for package in "$@"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "These packages (Debian's names) are needed and this system has no apt-get; install them by hand:$missing" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else
  echo "These packages are needed; install them as root (there is no sudo here):$missing" >&2
  exit 1
fi
echo "installing:$missing"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
