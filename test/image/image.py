"""The container's image, run: a group is protected, its frames are held, the container ends and is run again.

    image.py PLACE

PLACE has the image's store (run.sh). The command is the one at the head of deploy/Containerfile, and
more where this machine needs it: no control groups, limits as they are (crun beside this file). Runs in
namespaces of its own, over the network of the package's walk.
"""
import os
import re
import shlex
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../deb"))
from walk import GROUP, PATIENCE_S, Walk, devices, mustbe, ok, run, tidy, until  # noqa: E402

PLACE = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
STORE = ["--root", f"{PLACE}/store", "--runroot", f"{PLACE}/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", f"{HERE}/crun"]
VOLUMES = {"/var/lib/sluice": 0o700, "/run/sluice": 0o755, "/etc/sluice": 0o755}


def written():
    """The options of `podman run` as the Containerfile's head says them."""
    text = re.sub(r"^#\s?", "", open(f"{HERE}/../../deploy/Containerfile").read(), flags=re.M).replace("\\\n", " ")
    return shlex.split(re.search(r"^\s*podman run (.*) sluice$", text, re.M)[1])


class Image(Walk):
    def __init__(self):
        super().__init__(PLACE)
        for directory, mode in VOLUMES.items():
            os.makedirs(self.root + directory, mode)
        os.makedirs(f"{self.root}/sys")
        run("mount", "-t", "sysfs", "sysfs", f"{self.root}/sys")
        run("mount", "-t", "bpf", "bpf", f"{self.root}/sys/fs/bpf")
        run("umount", "/sys/fs/cgroup/unified", check=False)  # crun knows one kind of control groups at a time

    def podman(self, *words):
        return run("podman", *STORE, *words)

    def start(self):
        options = [word.replace("/sys/fs/bpf:", f"{self.root}/sys/fs/bpf:", 1) if word.startswith("/sys/") else f"{self.root}{word}" if word.startswith("/") and ":" in word else word for word in written()]
        self.log = open(f"{PLACE}/daemon", "a")
        self.daemon = subprocess.Popen(["podman", *STORE, "run", "--rm", "--name", "sluice", "--cgroups", "disabled", *options, "sluice"], stdout=self.log, stderr=self.log)
        said = lambda: open(f"{PLACE}/daemon").read()

        def live():
            if self.daemon.poll() is not None:
                raise SystemExit(f"FAILED: the container ended\n{said()}")
            try:
                return self.ask("GET", "/readyz")[0] == 200
            except OSError:
                return False

        until("readyz", live, said)

    def stop(self):
        self.podman("stop", "-t", "60", "sluice")
        mustbe(self.daemon.wait(PATIENCE_S), 0, "the container ends with 0 when it is stopped")

    def privileges(self):
        inside = self.podman("exec", "sluice", "cat", "/proc/1/status")
        wanted = sum(1 << bit for bit in (0, 12, 13, 23, 38, 39))
        mustbe([int(re.search(rf"^{key}:\s*([0-9a-f]+)$", inside, re.M)[1], 16) for key in ("CapBnd", "CapEff")], [wanted, wanted], "it has the six capabilities and no other")
        mustbe(re.search(r"^Seccomp:\s*(\d)$", inside, re.M)[1], "2", "its seccomp filter is on")


def main():
    image = Image()
    image.network()
    links = devices()
    image.start()
    ok(f"it runs: podman run {' '.join(written())} sluice")
    image.privileges()
    image.must("PUT", "/v1/groups/web", GROUP)
    image.must("POST", "/v1/groups/web/protect", {})
    first = image.send(5)
    image.holds(5, "a group of the host's bridge is protected")
    image.release(1, first, "after its commit they leave as they came, in order")
    image.send(3)
    image.holds(3, "before the container ends")
    image.stop()
    image.send(2)
    time.sleep(0.2)
    mustbe(image.out(), [], "while there is no container nothing comes out")
    image.start()
    mustbe(image.must("GET", "/v1/groups/web")["phase"], "protected", "another container finds the group protected as before")
    again = image.send(4)
    image.holds(4, "in the second container")
    image.release(2, again, "what came to it leaves; of the five before and between none did")
    image.must("POST", "/v1/groups/web/unprotect", {"generation": 1, "held": "discard"})
    image.stop()
    tidy(image, links)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    main()
except BaseException:
    time.sleep(1)  # what it has not written yet
    sys.stderr.write(open(f"{PLACE}/daemon").read()[-3000:] if os.path.exists(f"{PLACE}/daemon") else "")
    raise
finally:
    for mounted in ("sys/fs/bpf", "sys"):
        run("umount", "-l", f"{PLACE}/root/{mounted}", check=False)
