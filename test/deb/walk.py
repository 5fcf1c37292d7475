"""The package on a clean Debian root: installed, run as its unit runs it, restarted, upgraded, removed.

    walk.py PACKAGE.deb BASE.tar

BASE.tar is a Debian root with what the package depends on, and nothing of ours. Runs in namespaces of
its own (make test-deb starts it with unshare): a bridge with two members and an outside, made of veth.
Each line it prints was seen; it ends at the first that is not so. What needs systemd itself is
said at the end. Nothing is left behind.
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 60
GUIDE = os.path.join(HERE, "../../deploy/guides/security.md")
OLD = "0.0.9~walk"
GROUP = {"members": [{"name": "front", "port": "port0", "mac": "02:00:00:00:00:01"}, {"name": "store", "port": "port1", "mac": "02:00:00:00:00:02"}]}
# Written by every use of dpkg, not by what is installed.
DPKG_OWN = re.compile(r"^/(var/lib/dpkg|var/log/dpkg\.log|var/log/alternatives\.log|var/lib/systemd/deb-systemd-helper|var/cache|tmp|dev|proc|sys|run|pkg)(/|$|-)|^/etc/(group|gshadow)-?$|^/etc/ld\.so\.cache$|^/etc/\.pwd\.lock$")


def run(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"FAILED: {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def ok(text):
    print(f"ok    {text}", flush=True)


def mustbe(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"FAILED: {what}\n  wanted {wanted!r}\n  found  {found!r}")
    ok(what)


def until(what, ready, shown=lambda: ""):
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"FAILED: waited {PATIENCE_S} s for: {what}\n{shown()}")
        time.sleep(0.05)


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("sluice", timeout=PATIENCE_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self.path)


class Walk:
    def __init__(self, directory):
        self.directory = directory
        self.root = f"{directory}/root"
        self.daemon = None
        self.count = 0

    # ------------------------------------------------------------------------------ the root

    def unpack(self, base):
        os.mkdir(self.root)
        run("tar", "-xpf", base, "-C", self.root, "--numeric-owner")
        for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("run", "tmpfs"), ("dev", "tmpfs")):
            run("mount", "-t", kind, kind, f"{self.root}/{name}")
        run("mount", "-t", "bpf", "bpf", f"{self.root}/sys/fs/bpf")
        for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
            os.mknod(f"{self.root}/dev/{name}", 0o020666, os.makedev(1, minor))
            os.chmod(f"{self.root}/dev/{name}", 0o666)
        os.mkdir(f"{self.root}/dev/shm", 0o1777)
        os.mkdir(f"{self.root}/pkg")

    def inside(self, *words, check=True):
        return run("chroot", self.root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *words, check=check)

    def files(self):
        """Every file with its kind, mode and owner; and the groups' names."""
        found = set()
        for above, directories, names in os.walk(self.root):
            for name in directories + names:
                path = os.path.join(above, name)
                short = path[len(self.root):]
                if not DPKG_OWN.search(short):
                    seen = os.lstat(path)
                    found.add(f"{short} {seen.st_mode:o} {seen.st_uid}:{seen.st_gid}")
            directories[:] = [name for name in directories if not DPKG_OWN.search(os.path.join(above, name)[len(self.root):] + "/") and not os.path.ismount(os.path.join(above, name))]
        for name in ("group", "passwd"):
            found |= {f"{name}: {line.strip()}" for line in open(f"{self.root}/etc/{name}")}
        return found

    def install(self, package):
        shutil.copy(package, f"{self.root}/pkg/one.deb")
        said = self.inside("dpkg", "-i", "/pkg/one.deb")
        os.remove(f"{self.root}/pkg/one.deb")
        return said

    # ------------------------------------------------------------------------------ the network

    def network(self):
        open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w").write("1")
        run("ip", "link", "add", "br0", "type", "bridge")
        for name in ("0", "1", "9"):
            run("ip", "link", "add", f"port{name}", "type", "veth", "peer", "name", f"end{name}")
            run("ip", "link", "set", f"port{name}", "master", "br0", "up")
            run("ip", "link", "set", f"end{name}", "up")
        run("ip", "link", "set", "br0", "up")
        run("ip", "link", "set", "lo", "up")
        self.ends = {}
        for name in ("0", "9"):
            self.ends[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
            self.ends[name].bind((f"end{name}", 0x88b5))
            self.ends[name].setblocking(False)
        ports = [f"{self.root}/sys/class/net/port{name}/brport/state" for name in ("0", "1", "9")]
        until("ports forward", lambda: all(open(path).read().strip() == "3" for path in ports) and open(f"{self.root}/sys/class/net/br0/operstate").read().strip() == "up")

    def send(self, count):
        """Numbered frames from the member to the outside; returned as they must come out."""
        sent = []
        for _ in range(count):
            self.count += 1
            frame = bytes.fromhex("020000000009020000000001") + b"\x88\xb5" + f"frame {self.count}".encode().ljust(100, b".")
            self.ends["0"].send(frame)
            sent.append(frame)
        return sent

    def out(self):
        frames = []
        while True:
            try:
                frames.append(self.ends["9"].recv(2048))
            except BlockingIOError:
                return frames

    # ------------------------------------------------------------------------------ the daemon

    def start(self):
        path = f"{self.root}/run/notify"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(path)
        self.log = open(f"{self.directory}/log", "a")
        self.daemon = subprocess.Popen(["unshare", "--mount", "--propagation", "private", sys.executable, f"{HERE}/as_unit.py", self.root, f"{self.root}/lib/systemd/system/sluiced.service", "/run/notify"],
                                       stdout=self.log, stderr=self.log)
        try:
            manager.settimeout(1)
            end = time.monotonic() + PATIENCE_S
            said = b""
            while b"READY=1" not in said:
                if self.daemon.poll() is not None or time.monotonic() > end:
                    raise TimeoutError
                try:
                    said = manager.recv(4096)
                except TimeoutError:
                    said = b""
        except TimeoutError:
            raise SystemExit(f"FAILED: sluiced did not say READY=1\n{open(f'{self.directory}/log').read()}")
        finally:
            manager.close()
            os.remove(path)

    def stop(self):
        self.daemon.terminate()
        code = self.daemon.wait(PATIENCE_S)
        mustbe(code, 0, "sluiced ends with 0 on SIGTERM")

    def ask(self, method, path, body=None):
        api = Api(f"{self.root}/run/sluice/control.sock")
        api.request(method, path, None if body is None else json.dumps(body), {} if body is None else {"content-type": "application/json"})
        answer = api.getresponse()
        return answer.status, json.loads(answer.read())

    def must(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        if status != 200:
            raise SystemExit(f"FAILED: {method} {path}: {status} {answer}")
        return answer

    def holds(self, frames, what):
        until(what, lambda: self.must("GET", "/v1/groups/web")["held"]["frames"] == frames)
        mustbe(self.out(), [], f"{what}: {frames} frames held, none outside")

    def release(self, epoch, frames, what):
        self.must("POST", "/v1/groups/web/cut", {"generation": 1, "epoch": epoch})
        self.must("POST", "/v1/groups/web/commit?wait=released", {"generation": 1, "epoch": epoch})
        seen = []
        until("they come out", lambda: (seen.extend(self.out()), len(seen) >= len(frames))[1])
        mustbe(seen, frames, what)

    def pins(self):
        """But the kernel's own (maps.debug, progs.debug)."""
        return [name for name in os.listdir(f"{self.root}/sys/fs/bpf") if not name.endswith(".debug")]

    def unit(self):
        """As the root's own systemd sees it: every line of it, its program, its man pages."""
        mustbe(self.inside("systemd-analyze", "verify", "--man=yes", "sluiced.service"), "", "systemd-analyze verify has nothing to say of the installed unit")
        score = self.inside("systemd-analyze", "security", "--offline=true", "--no-pager", "sluiced.service").splitlines()[-1]
        said = re.search(r"`systemd-analyze security` counts ([0-9.]+)", open(GUIDE).read())[1]
        mustbe(re.search(r": ([0-9.]+) ", score)[1], said, f"systemd-analyze security, as the guide says: {score[score.index('Overall'):]}")

    def privileges(self):
        status = open(f"/proc/{self.daemon.pid}/status").read()
        wanted = sum(1 << bit for bit in (0, 12, 13, 23, 38, 39))
        mustbe([int(re.search(rf"^{key}:\s*([0-9a-f]+)$", status, re.M)[1], 16) for key in ("CapBnd", "CapEff")], [wanted, wanted], "it has the six capabilities of the unit and no other")
        mustbe([re.search(rf"^{key}:\s*(\d)$", status, re.M)[1] for key in ("Seccomp", "NoNewPrivs")], ["2", "1"], "its seccomp filter and no-new-privileges are on")


def older(package, directory):
    """The same package under a lower version."""
    at = f"{directory}/older"
    run("dpkg-deb", "-R", package, at)
    for path, pattern, text in ((f"{at}/DEBIAN/control", r"^Version: .*$", f"Version: {OLD}"), (f"{at}/usr/lib/sluice/package.json", r'"version": "[^"]*"', '"version": "0.0.9"')):
        before = open(path).read()
        open(path, "w").write(re.sub(pattern, text, before, count=1, flags=re.M))
    os.remove(f"{at}/DEBIAN/md5sums")
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", at, f"{directory}/older.deb")
    shutil.rmtree(at)
    return f"{directory}/older.deb"


def devices():
    """Their names, addresses and flags."""
    return sorted(re.sub(r",M-DOWN|,LOWER_UP", "", line) for line in run("ip", "-br", "link").splitlines())


def tidy(walk, links):
    until("devices are gone", lambda: devices() == links, lambda: f"before {links}\nnow    {devices()}")
    ok("no device is left: `ip link` is as before")
    until("pins are gone", lambda: walk.pins() == [], lambda: str(walk.pins()))
    ok("nothing of ours is left in /sys/fs/bpf")


def main(directory, package, base):
    walk = Walk(directory)
    walk.unpack(base)
    walk.network()
    clean, links = walk.files(), devices()
    version = run("dpkg-deb", "-f", package, "Version").strip()

    walk.install(older(package, directory))
    mustbe(walk.inside("sluiced", "--version").strip(), "sluiced 0.0.9", f"version {OLD} is installed on a clean root and runs")
    mustbe("group: sluice:" in "\n".join(walk.files()), True, "the group sluice is there")
    walk.unit()
    walk.start()
    ok("sluiced started as its unit says and said READY=1")
    walk.privileges()
    mustbe(walk.must("GET", "/readyz"), {"ready": True, "missing": []}, "readyz: nothing is missing")
    gid = int(re.search(r"^sluice:x:(\d+):", open(f"{walk.root}/etc/group").read(), re.M)[1])
    seen = os.stat(f"{walk.root}/run/sluice/control.sock")
    mustbe((seen.st_mode & 0o777, seen.st_gid), (0o660, gid), "its socket is of the group sluice, mode 0660")

    walk.must("PUT", "/v1/groups/web", GROUP)
    walk.must("POST", "/v1/groups/web/protect", {})
    first = walk.send(5)
    walk.holds(5, "a group is protected")
    walk.release(1, first, "after its commit they leave as they came, in order")

    lost = walk.send(3)
    walk.holds(3, "before a restart")
    walk.stop()
    lost += walk.send(2)
    mustbe(walk.out(), [], "while it is stopped nothing comes out")
    walk.start()
    mustbe(walk.must("GET", "/v1/groups/web")["phase"], "protected", "started again, the group is protected as before")
    again = walk.send(4)
    walk.holds(4, "after a restart")
    walk.release(2, again, f"what came after the restart leaves; of the {len(lost)} before and meanwhile none did")

    walk.install(package)
    walk.stop()
    walk.start()
    mustbe(walk.inside("sluiced", "--version").strip(), f"sluiced {version}", f"upgraded to {version} over a protected group, and restarted")
    upgraded = walk.send(2)
    walk.holds(2, "after the upgrade")
    walk.release(3, upgraded, "the group went on through the upgrade")
    walk.install(f"{directory}/older.deb")
    walk.stop()
    walk.start()
    back = walk.send(1)
    walk.holds(1, "after the way back to the older version")
    walk.release(4, back, "the group went on through that too")
    walk.install(package)

    doctor = walk.inside("sluice", "doctor", check=False)
    print("".join(f"      {line}\n" for line in doctor.splitlines() if not line.startswith("ok")), end="")
    walk.must("POST", "/v1/groups/web/unprotect", {"generation": 1, "held": "discard"})
    walk.must("DELETE", "/v1/groups/web")
    walk.stop()
    tidy(walk, links)

    walk.start()
    walk.must("PUT", "/v1/groups/web", GROUP)
    walk.must("POST", "/v1/groups/web/protect", {})
    walk.stop()
    said = walk.inside("dpkg", "-r", "sluice")
    mustbe("groups are still protected in the kernel" in said, True, "removed while a group is protected: it says so, and how to give that up")
    walk.send(3)
    time.sleep(0.2)
    mustbe(walk.out(), [], "and what is protected stays held")
    for name in walk.pins():
        shutil.rmtree(f"{walk.root}/sys/fs/bpf/{name}")
    for name in re.findall(r"^(slh\d+)", run("ip", "-br", "link"), re.M):
        run("ip", "link", "del", name)
    tidy(walk, links)
    walk.inside("dpkg", "-P", "sluice")
    after = walk.files()
    mustbe((sorted(after - clean), sorted(clean - after)), ([], []), "purged without a trace: every file, mode, owner, user and group is as before")
    print("      not shown here, for it needs systemd itself: enabling and starting by the package's scripts, the watchdog's kill,\n"
          "      RestartSec, the cgroup's device list, ProtectProc, RestrictNamespaces")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`
    place = tempfile.mkdtemp(prefix="sl-deb-")
    try:
        main(place, *(os.path.abspath(one) for one in sys.argv[1:3]))
    finally:
        for mounted in ("sys/fs/bpf", "sys", "proc", "run", "dev"):
            run("umount", "-l", f"{place}/root/{mounted}", check=False)
        shutil.rmtree(place, ignore_errors=True)
