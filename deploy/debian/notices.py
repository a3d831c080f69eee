#!/usr/bin/env python3
"""Prints the notices of everything that is linked into the binary: each licence text once, with the packages it is of.

usage: notices.py (in the repository)
"""
import glob
import hashlib
import json
import os
import re
import subprocess
import sys

NAMED = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)
# What we do not choose of a package that offers a choice (`xtask tidy` sees to it that every package does).
UNCHOSEN = "GNU GENERAL PUBLIC LICENSE"
TEXT_MAX = 200_000


def cargo(*words):
    return subprocess.run(["cargo", *words], capture_output=True, text=True, check=True).stdout


def linked():
    """(name, version) of every package that ends up in the binary; not what only builds it."""
    out = cargo("tree", "--locked", "-p", "node", "-e", "normal", "--prefix", "none", "--format", "{p}")
    return {tuple(line.split()[:2]) for line in out.splitlines() if line}


def texts(folder):
    """Licence files of a package; C sources carry theirs one or two folders down."""
    for depth in ("*", "*/*"):
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), depth))):
            name = os.path.basename(path)
            if not NAMED.match(name) or name.endswith((".rs", ".py")) or not os.path.isfile(path):
                continue
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(TEXT_MAX).strip()
            if UNCHOSEN not in text[:500]:
                yield text


def main():
    wanted = linked()
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    by_text, without, count = {}, [], 0
    for package in packages:
        # Our own have no source and are under the package's own terms.
        if package["source"] is None or (package["name"], "v" + package["version"]) not in wanted:
            continue
        count += 1
        title = f"{package['name']} {package['version']} ({package['license'] or package['license_file']})"
        found = list(texts(os.path.dirname(package["manifest_path"])))
        if not found:
            without.append(f"{title}, {', '.join(package['authors']) or package['repository'] or 'no author named'}")
        for text in found:
            key = hashlib.sha256(re.sub(r"\s+", " ", text).encode()).hexdigest()
            by_text.setdefault(key, (text, []))[1].append(title)
    if count < 50:
        sys.exit(f"notices.py: only {count} packages found")
    print(f"Twinpost contains {count} packages of other people, under these terms.")
    for text, titles in by_text.values():
        print(f"\n{'=' * 100}\n" + "\n".join(sorted(set(titles))) + f"\n{'-' * 100}\n{text}")
    print(f"\n{'=' * 100}\nPackages that come without a text of their own:\n" + "\n".join(sorted(without)))


main()
