"""Starts the daemon as systemd would by its unit, as far as that can be done without systemd.

    as_unit.py ROOT UNIT NOTIFY_SOCKET

Done as the unit says: capabilities (bounding set), no new privileges, the seccomp filter with its
errno, address families, umask, limits, a root that is read-only but for what the unit lets it write, a
private /dev and /tmp, no /home. Not done: ProtectProc, ProtectClock and its like beyond what the
filter and the capabilities already forbid, the cgroup's device list, namespaces' restriction.
"""
import ctypes
import os
import re
import resource
import socket
import subprocess
import sys

import seccomp

root, unit_file, notify = sys.argv[1:]
text = open(unit_file).read()
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
CAPABILITIES = {name: bit for bit, name in enumerate(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST "
    "NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM "
    "BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE".split())}
libc = ctypes.CDLL(None, use_errno=True)


def values(key):
    return [word for line in re.findall(rf"^{key}=(.*)$", text, re.M) for word in line.split()]


def must(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, kind=None, flags=0, data=None):
    encode = lambda one: one if one is None else one.encode()
    must(libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)), f"mount {target}")


def syscalls_of(name, seen=()):
    """A @set as this machine's systemd has it, down to single calls."""
    if not name.startswith("@"):
        return {name}
    lines = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout.splitlines()
    words = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(syscalls_of(word, (*seen, name)) for word in words if word not in seen))


def build_world():
    for name, mode in [("RuntimeDirectory", 0o755), ("StateDirectory", 0o700), ("LogsDirectory", 0o750), ("ConfigurationDirectory", 0o755)]:
        above = {"RuntimeDirectory": "run", "StateDirectory": "var/lib", "LogsDirectory": "var/log", "ConfigurationDirectory": "etc"}[name]
        for each in values(name):
            path = f"{root}/{above}/{each}"
            os.makedirs(path, exist_ok=True)
            mode = int((values(f"{name}Mode") or [oct(mode)[2:]])[0], 8)
            os.chmod(path, mode)
    mount(root, root, None, MS_BIND | MS_REC)
    writable = [f"run/{one}" for one in values("RuntimeDirectory")] + [f"var/lib/{one}" for one in values("StateDirectory")] \
        + [f"var/log/{one}" for one in values("LogsDirectory")] + [f"etc/{one}" for one in values("ConfigurationDirectory")] + [one.lstrip("-/") for one in values("ReadWritePaths")]
    for path in writable:
        mount(f"{root}/{path}", f"{root}/{path}", None, MS_BIND | MS_REC)
    for path in (root, f"{root}/run", f"{root}/dev"):
        mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    for path in ("tmp", "home", "root"):
        mount("tmpfs", f"{root}/{path}", "tmpfs")


def limit(kind, key):
    word = (values(key) or [""])[0]
    if word:
        value = resource.RLIM_INFINITY if word == "infinity" else int(word)
        try:
            resource.setrlimit(kind, (value, value))
        except ValueError:  # this machine lets nobody raise it
            print(f"as_unit: {key}={word} can't be given here", file=sys.stderr)


def filter_of():
    allowed = set().union(*(syscalls_of(word) for word in values("SystemCallFilter")))
    rule = seccomp.SyscallFilter(seccomp.ERRNO(int({"EPERM": 1}[values("SystemCallErrorNumber")[0]])))
    for name in sorted(allowed | syscalls_of("@default")):
        try:
            if name != "socket":
                rule.add_rule(seccomp.ALLOW, name)
        except (RuntimeError, ValueError, OSError):
            pass  # of another architecture
    for family in values("RestrictAddressFamilies"):
        rule.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, int(getattr(socket, family))))
    return rule


granted = {CAPABILITIES[name.removeprefix("CAP_")] for name in values("CapabilityBoundingSet")}
rule = filter_of()
build_world()
os.chdir(root)
os.chroot(".")
os.chdir("/")
os.umask(int(values("UMask")[0], 8))
limit(resource.RLIMIT_MEMLOCK, "LimitMEMLOCK")
limit(resource.RLIMIT_NOFILE, "LimitNOFILE")
limit(resource.RLIMIT_CORE, "LimitCORE")
last = int(open("/proc/sys/kernel/cap_last_cap").read())
for bit in range(last + 1):
    if bit not in granted:
        must(libc.prctl(PR_CAPBSET_DROP, bit, 0, 0, 0), f"drop {bit}")
must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
program = values("ExecStart")[0]
environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "30000000"}
rule.load()  # the last: what follows is under it
os.execve(program, [program], environment)
