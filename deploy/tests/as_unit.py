#!/usr/bin/env python3
"""Starts a service's ExecStart in a folder as its unit file would, where no systemd runs: user, capabilities, limits, and the
system calls and socket families that it allows. A forbidden call kills the process instead of failing, so that none goes
unnoticed. What needs mounts (ProtectSystem and its kin) is not done. Replaces itself by the service.

usage: as_unit.py UNIT ROOT
"""
import os
import resource
import socket
import subprocess
import sys

import seccomp

# What chroot and setpriv do before the service is there.
BEFORE = "chroot capget capset setgroups setresgid setresuid setgid setuid".split()


def read(path):
    """{key: [values]}; an empty value clears, as systemd has it."""
    found = {}
    for line in open(path, encoding="utf-8"):
        key, equals, value = line.strip().partition("=")
        if equals and not line.startswith(("#", ";", "[")):
            found.setdefault(key, []).append(value)
    return found


def expand(name):
    """System calls of a group."""
    if not name.startswith("@"):
        return {name}
    lines = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in lines.splitlines()[1:]]
    return set().union(*(expand(word) for word in words if word and not word.startswith("#")))


def allowed(lines):
    calls = set(expand("@default"))
    for line in lines:
        named = set().union(*(expand(word) for word in line.removeprefix("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def restrict(calls, families):
    guard = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    for call in sorted(calls - {"socket"} | set(BEFORE)):
        try:
            guard.add_rule(seccomp.ALLOW, call)
        except RuntimeError:
            pass  # Of another architecture, or newer than this libseccomp.
    for family in families:
        guard.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, int(getattr(socket, family))))
    guard.load()


def main():
    unit, root = sys.argv[1:]
    keys = read(unit)
    one = lambda key: keys[key][-1]
    for key, limit in (("LimitNOFILE", resource.RLIMIT_NOFILE), ("LimitCORE", resource.RLIMIT_CORE)):
        # Not above what this machine lets root have.
        most = resource.getrlimit(limit)[1]
        wanted = int(one(key))
        resource.setrlimit(limit, (wanted if most == resource.RLIM_INFINITY else min(wanted, most),) * 2)
    os.umask(int(one("UMask"), 8))
    caps = ",".join("+" + name.removeprefix("CAP_").lower() for name in one("AmbientCapabilities").split())
    bound = ",".join("+" + name.removeprefix("CAP_").lower() for name in one("CapabilityBoundingSet").split())
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/var/lib/twinpost"}
    environment.update(pair.split("=", 1) for pair in keys["Environment"])
    environment.update((name, os.environ[name]) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in os.environ)
    command = ["chroot", root, "setpriv", "--reuid", one("User"), "--regid", one("Group"), "--init-groups"]
    command += ["--inh-caps", f"-all,{caps}", "--ambient-caps", f"-all,{caps}", "--bounding-set", f"-all,{bound}"]
    command += ["--no-new-privs", *one("ExecStart").split()]
    restrict(allowed(keys["SystemCallFilter"]), one("RestrictAddressFamilies").split())
    os.execvpe(command[0], command, environment)


main()
