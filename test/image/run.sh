#!/usr/bin/env bash
# The container's image, built as deploy/Containerfile says and run as its head says (image.py). Its base is the clean
# Debian root of test/deb, because a registry of images may be out of reach; its store is a directory that goes with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=$(ls -t out/sluice_*.deb | head -1)
base=$(test/deb/root.sh "$package")
place=$(mktemp -d /tmp/sl-image-XXXXXX)
trap 'rm -rf "$place"' EXIT
mkdir "$place/bin"
printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$place/policy.json"
store=(--root "$place/store" --runroot "$place/run" --storage-driver vfs)
quietly() { "$@" >"$place/log" 2>&1 || { tail -20 "$place/log" >&2; exit 1; }; }
container=$(buildah "${store[@]}" from scratch)
quietly buildah "${store[@]}" add -q "$container" "$base" /
quietly buildah "${store[@]}" commit -q --signature-policy "$place/policy.json" "$container" localhost/debian
quietly buildah "${store[@]}" bud --signature-policy "$place/policy.json" --isolation chroot --build-arg BASE=localhost/debian -f deploy/Containerfile -t sluice .
echo "ok    the image is built of the package as deploy/Containerfile says, on a Debian root made here"
unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private /usr/bin/python3 test/image/image.py "$place"
