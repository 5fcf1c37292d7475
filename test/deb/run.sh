#!/usr/bin/env bash
# The package on a clean Debian root (walk.py). The root is made once and kept as out/debian-SUITE-systemd.tar: Debian's
# base with systemd and man, as a host has them. Its release must have Node 20 or later among its packages: SUITE=trixie.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=${SUITE:-trixie}
base=out/debian-$suite-systemd.tar
package=$(ls -t out/sluice_*.deb | head -1)
if [ ! -f "$base" ]; then
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  debootstrap --variant=minbase "$suite" "$place/root" >"$place/log" 2>&1 || { tail -5 "$place/log" >&2; exit 1; }
  DEBIAN_FRONTEND=noninteractive chroot "$place/root" apt-get satisfy -y --no-install-recommends "$(dpkg-deb -f "$package" Depends), systemd, man-db" >"$place/log" 2>&1 || { tail -5 "$place/log" >&2; exit 1; }
  chroot "$place/root" apt-get clean
  tar -C "$place/root" --numeric-owner -cpf "$base.new" .
  mv "$base.new" "$base"
  rm -rf "$place" # what `exec` replaces has no end of its own
fi
exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private /usr/bin/python3 test/deb/walk.py "$package" "$base"
