#!/usr/bin/env bash
# The package on a clean Debian root (walk.py, root.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
package=$(ls -t out/sluice_*.deb | head -1)
base=$(test/deb/root.sh "$package")
exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private /usr/bin/python3 test/deb/walk.py "$package" "$base"
