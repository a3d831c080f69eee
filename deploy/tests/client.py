#!/usr/bin/env python3
"""Sends one message to an account by SMTP on one address and reads it by IMAP on another.

usage: client.py CA SMTP_ADDRESS IMAP_ADDRESS ACCOUNT   (the password on standard input)
"""
import imaplib
import smtplib
import ssl
import sys
import time
import uuid


def main():
    ca, smtp, imap, account = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    mark = uuid.uuid4().hex
    with smtplib.SMTP(smtp, 25, timeout=20) as client:
        client.sendmail("a@example.net", [account], f"From: a@example.net\r\nSubject: {mark}\r\n\r\nhello\r\n")
    context = ssl.create_default_context(cafile=ca)
    reader = imaplib.IMAP4_SSL(imap, 993, ssl_context=context, timeout=20)
    reader.login(account, password)
    for _ in range(50):
        reader.select("INBOX")
        _, found = reader.search(None, "SUBJECT", mark)
        if found[0].split():
            return
        time.sleep(0.1)
    sys.exit(f"the message {mark} is not in INBOX")


main()
