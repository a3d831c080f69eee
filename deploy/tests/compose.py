#!/usr/bin/env python3
"""Reads the image and compose files. They must fit together and with the node files beside them.

usage: compose.py FOLDER              checks; prints one line a service: NAME ADDRESS CAPABILITIES COMMAND...
       compose.py FOLDER --steps      prints the RUN steps of the image's last stage, each on one line
"""
import ipaddress
import json
import pathlib
import sys
import tomllib

import yaml


def instructions(path):
    """(word, rest) of each instruction of the last stage."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    stages = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages[-1]


def must(condition, text):
    if not condition:
        sys.exit(f"compose.py: {text}")


def main():
    folder = pathlib.Path(sys.argv[1])
    last = instructions(folder / "Containerfile")
    if sys.argv[2:] == ["--steps"]:
        print("\n".join(rest for word, rest in last if word == "RUN"))
        return
    words = {word: rest for word, rest in last}
    command = json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"])
    compose = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))
    network = compose["networks"]["mail"]["ipam"]["config"][0]
    subnet, dynamic = (ipaddress.ip_network(network[key]) for key in ("subnet", "ip_range"))
    must(dynamic.subnet_of(subnet), "ip_range is not in the subnet")
    addresses = set()
    for name, service in compose["services"].items():
        address = ipaddress.ip_address(service["networks"]["mail"]["ipv4_address"])
        node = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
        must(node["address"] == str(address) and node["name"] == name, f"{name}.toml is of another node")
        must(address in subnet and address not in dynamic and address not in addresses, f"{name}: address {address}")
        addresses.add(address)
        must(f"./{name}.toml:/etc/twinpost/twinpost.toml:ro" in service["volumes"], f"{name}: no node file")
        must(f"{name}:{words['VOLUME']}" in service["volumes"] and name in compose["volumes"], f"{name}: no volume")
        must(service["cap_drop"] == ["ALL"] and service["read_only"] is True, f"{name}: too much is allowed")
        must("no-new-privileges:true" in service["security_opt"], f"{name}: may get more")
        must("privileged" not in service and "image" in service, f"{name}: privileged, or without an image")
        print(name, address, ",".join(cap.lower() for cap in service["cap_add"]), *command)


main()
