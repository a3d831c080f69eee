"""A day of mail with the clients of Python's library; every line that fails ends the script."""

import imaplib
import poplib
import smtplib
import ssl
import sys
import time

host, submission, imaps, imap, pop3s, ca, user, password = sys.argv[1:9]
context = ssl.create_default_context(cafile=ca)


def check(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


def message(subject, body):
    return f"From: <{user}>\r\nTo: <{user}>\r\nSubject: {subject}\r\n\r\n{body}\r\n"


with smtplib.SMTP(host, int(submission)) as client:
    client.starttls(context=context)
    client.login(user, password)
    client.sendmail(user, [user], message("first", "one\r\n.two\r\n..three").encode())
    client.sendmail(user, [user], message("second", "größer").encode("utf-8"), ["BODY=8BITMIME"])

with imaplib.IMAP4_SSL(host, int(imaps), ssl_context=context) as client:
    check(client.login(user, password))
    names = b" ".join(check(client.list()))
    for name in [b"INBOX", b"Drafts", b"Sent", b"Junk", b"Trash", b"Archive"]:
        assert name in names, names
    assert check(client.select("INBOX")) == [b"2"]
    assert check(client.search(None, "SUBJECT", "second")) == [b"2"]
    whole = check(client.fetch("1", "(UID FLAGS BODY.PEEK[])"))[0][1]
    assert whole.endswith(b"\r\n\r\none\r\n.two\r\n..three\r\n"), whole
    assert b"Received: " in whole and b"Return-Path: " in whole, whole
    assert b"gr\xc3\xb6\xc3\x9fer" in check(client.fetch("2", "(BODY[TEXT])"))[0][1]
    assert b"\\Seen" in b" ".join(check(client.fetch("2", "(FLAGS)")))
    check(client.store("1", "+FLAGS", "(\\Flagged $label)"))
    check(client.copy("1", "Archive"))
    when = imaplib.Time2Internaldate(time.time())
    check(client.append("Sent", "(\\Seen)", when, message("kept", "copy").encode()))
    check(client.create("Projects/One"))
    check(client.rename("Projects/One", "Projects/Two"))
    assert check(client.status("Sent", "(MESSAGES UIDNEXT UIDVALIDITY)"))[0].find(b"MESSAGES 1") > 0
    check(client.select("Archive"))
    assert b"$label" in b" ".join(check(client.fetch("1", "(FLAGS)")))
    check(client.store("1", "+FLAGS", "(\\Deleted)"))
    assert check(client.expunge()) == [b"1"]
    check(client.delete("Projects/Two"))

with imaplib.IMAP4(host, int(imap)) as client:
    assert "LOGINDISABLED" in client.capabilities, client.capabilities
    check(client.starttls(context))
    check(client.login(user, password))
    check(client.select("INBOX", readonly=True))
    assert b"ENVELOPE" in check(client.fetch("1:*", "(ENVELOPE BODYSTRUCTURE RFC822.SIZE)"))[0]

box = poplib.POP3_SSL(host, int(pop3s), context=context)
box.user(user)
box.pass_(password)
count, _ = box.stat()
assert count == 2, count
lines = box.retr(1)[1]
assert lines[-3:] == [b"one", b".two", b"..three"], lines
ids = box.uidl()[1]
assert len(set(ids)) == 2, ids
box.dele(1)
box.quit()

with imaplib.IMAP4_SSL(host, int(imaps), ssl_context=context) as client:
    check(client.login(user, password))
    assert check(client.select("INBOX")) == [b"1"]
