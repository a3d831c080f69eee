#!/usr/bin/env python3
"""Stands for the service manager: prints what a service tells it, one message a line, until it is ended.

usage: hear.py SOCKET
"""
import os
import socket
import sys

place = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(place)
os.chmod(place, 0o666)
while True:
    print(manager.recv(4096).decode().replace("\n", " | "), flush=True)
