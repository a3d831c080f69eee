#!/usr/bin/env python3
"""Prints twinpost(1) as roff, made of what the binary itself says.

usage: man.py BINARY DATE VERSION
"""
import collections
import re
import subprocess
import sys

SECTIONS = {"Commands:": "commands", "Arguments:": "arguments", "Options:": "options"}
# Said once for all commands.
COMMON = ["--config <CONFIG>", "--server <SERVER>", "--ca-file <CA_FILE>", "--json"]
ENTRY = re.compile(r"^ {2,}(\S.*?) {2,}(\S.*)$")

FRAME = """\
.TH TWINPOST 1 "{date}" "Twinpost {version}" "Mail"
.SH NAME
twinpost \\- a highly available mail system for a pair of machines
.SH SYNOPSIS
.B twinpost
.I command
[\\fIoptions\\fR]
.SH DESCRIPTION
Two machines, no shared storage: a message is acknowledged when it is durable on both, either machine goes on alone when the
other is gone, and what was acknowledged is there when they meet again. The service runs
.BR "twinpost guard" ,
which runs
.BR "twinpost serve" .
The other commands ask the node on this machine through its API, with the token in its data folder; they are root's.
A command of root's that opens the data folder itself works as the folder's owner.
.SH COMMON OPTIONS
"""
END = """\
.SH FILES
.TP
.I /etc/twinpost/twinpost.toml
Node file. An example is /usr/share/doc/twinpost/examples/twinpost.toml.
.TP
.I /var/lib/twinpost
Everything the node keeps: mail, settings, certificates and keys.
.TP
.I /etc/default/twinpost
Environment of the service; whether an upgrade restarts it.
.TP
.I /usr/share/doc/twinpost/operations
How to run a cluster.
.SH ENVIRONMENT
.TP
.B TWINPOST_TOKEN
The administrator's token, with \\fB\\-\\-server\\fR.
.TP
.BR NOTIFY_SOCKET ", " WATCHDOG_USEC
Set by the service manager: whom the daemon tells how it does. See
.BR sd_notify (3).
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Refused; nothing was changed, asking again gives the same.
.TP
.B 2
Unavailable or unknown; ask again. Of the guard: the daemon was ended by a signal.
.TP
.B 64
The words of the command or the node file are wrong.
.TP
.B 70
The daemon ended itself, because going on would have broken a promise.
.TP
.B 78
The data folder belongs to no cluster, or not any more.
.SH SEE ALSO
.BR systemctl (1),
.BR journalctl (1)
"""


def roff(text):
    """Text as roff shows it."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\\&" + text if text.startswith((".", "\\(aq")) else text


def parse(binary, words):
    """(about, usage, {section: [(term, text)]}) of one command."""
    run = subprocess.run([binary, *words, "-h"], capture_output=True, text=True, check=True)
    about, usage, found, section = [], "", {}, None
    for line in run.stdout.splitlines():
        if line.startswith("Usage: "):
            usage = line.removeprefix("Usage: ")
        elif line in SECTIONS:
            section = SECTIONS[line]
        elif not usage and line.strip():
            about.append(line.strip())
        elif entry := ENTRY.match(line):
            found.setdefault(section, []).append(entry.groups())
    if not usage:
        sys.exit(f"man.py: no usage in the help of {' '.join(words) or 'twinpost'}")
    return " ".join(about), usage, found


def terms(entries):
    for term, text in entries:
        if not term.startswith("-h,"):
            yield f".TP\n\\fB{roff(term)}\\fR\n{roff(text)}"


def commands(binary, words):
    """Every command under `words` that does something, in the order of the help."""
    about, usage, found = parse(binary, words)
    below = [name for name, _ in found.get("commands", []) if name != "help"]
    for name in below:
        yield from commands(binary, [*words, name])
    if not below:
        yield words, about, usage, found


def main():
    binary, date, version = sys.argv[1:]
    print(FRAME.format(date=date, version=version), end="")
    everything = list(commands(binary, []))
    texts = {name: collections.Counter() for name in COMMON}
    for _, _, _, found in everything:
        for term, text in found.get("options", []):
            if term in texts:
                texts[term][text] += 1
    # Where commands word it differently, as most of them do.
    print("\n".join(terms((name, seen.most_common(1)[0][0]) for name, seen in texts.items())))
    print(".SH COMMANDS")
    for words, about, usage, found in everything:
        print(f".SS {roff('twinpost ' + ' '.join(words))}")
        print(f"{roff(about)}.\n.PP\n.B {roff(usage)}")
        own = [entry for entry in found.get("options", []) if entry[0] not in COMMON]
        print("\n".join(terms(found.get("arguments", []) + own)))
    print(END, end="")


main()
