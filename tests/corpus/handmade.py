"""Messages written by hand: each is here because of one thing that programs get wrong."""

HEAD = """From: Ada Quill <ada@example.org>
To: bob@example.net
Date: Tue, 3 Mar 2026 09:15:00 +0100
Message-ID: <{id}@example.org>
Subject: {subject}
"""


def head(name: str, subject: str | None = None) -> str:
    return HEAD.format(id=name, subject=subject or name)


def plain(name: str, more: str = "", body: str = "Hello.\n") -> bytes:
    return (head(name) + more + "\n" + body).encode("utf-8")


def messages():
    """(shape, note, bytes, refused)"""
    yield from headers()
    yield from addresses()
    yield from words()
    yield from bodies()
    yield from multiparts()
    yield from broken()
    yield from lists_and_reports()


def headers():
    yield "plain", "the smallest ordinary message", plain("plain"), False
    yield "folded-subject", "Subject folded over three lines, one of them by a tab", (
        head("folded", "first\n second\n\tthird") + "\nHello.\n").encode(), False
    yield "no-subject", "no Subject at all", (
        b"From: ada@example.org\nTo: bob@example.net\nDate: Tue, 3 Mar 2026 09:15:00 +0100\n\nHello.\n"), False
    yield "empty-subject", "Subject with nothing behind it", head("empty", " ").encode() + b"\nHello.\n", False
    yield "no-message-id", "no Message-ID", b"From: ada@example.org\nSubject: no id\n\nHello.\n", False
    yield "no-date", "no Date", b"From: ada@example.org\nMessage-ID: <nodate@example.org>\n\nHello.\n", False
    yield "bad-date", "a Date nobody can read", plain("bad-date").replace(
        b"Tue, 3 Mar 2026 09:15:00 +0100", b"yesterday, half past nine"), False
    yield "old-date", "two-digit year, named zone, comments (RFC 5322 4.3)", plain("old-date").replace(
        b"Tue, 3 Mar 2026 09:15:00 +0100", b"Fri (a day), 21 Nov 97 09(comment):55 : 06 EST"), False
    yield "leap-second", "second 60 in the Date", plain("leap").replace(b"09:15:00", b"23:59:60"), False
    yield "doubled-fields", "two Subjects, two Froms, two Message-IDs", plain(
        "doubled", "Subject: the second\nFrom: eve@example.com\nMessage-ID: <second@example.com>\n"), False
    yield "space-before-colon", "white space between field name and colon (RFC 5322 4.5)", plain(
        "space", "X-Odd : value\nComments\t: more\n"), False
    yield "case-of-names", "field names in strange case", (
        b"fRoM: ada@example.org\nTO: bob@example.net\nsUBJECT: case\nmime-version: 1.0\n"
        b"CONTENT-TYPE: TEXT/PLAIN; CHARSET=UTF-8\n\nHello.\n"), False
    yield "empty-fields", "fields without value", plain("empty-fields", "X-Empty:\nCc:\nReply-To: \n"), False
    yield "trailing-space", "values and body lines that end in spaces and tabs", plain(
        "trailing", "X-Trailing: value  \t \n", "line with spaces   \nline with tab\t\n \n\t\n"), False
    yield "long-line-998", "a header and a body line of exactly 998 octets", plain(
        "long998", "X-Long: " + "x" * 990 + "\n", "y" * 998 + "\n"), False
    yield "long-line-over", "a body line of 5000 octets (RFC 5321 4.5.3.1.6 allows 998)", plain(
        "longover", "", "z" * 5000 + "\n"), True
    yield "long-name", "a field name of 200 letters", plain("longname", "X-" + "n" * 198 + ": v\n"), False
    yield "nonascii-header", "UTF-8 in headers without encoded words (RFC 6532)", (
        head("utf8 header", "Grüße aus Zürich – żółw 東京") + "X-Où: là\n\nHällo.\n").encode(), False
    yield "latin1-header", "raw ISO-8859-1 bytes in a header, which are no UTF-8", plain("latin1").replace(
        b"Subject: latin1", b"Subject: caf\xe9 cr\xe8me"), False
    yield "bcc-kept", "a Bcc field that the author's program forgot to take away", plain(
        "bcc", "Bcc: carol@example.com\n"), False
    yield "references", "a thread: In-Reply-To and a long References", plain(
        "references", "In-Reply-To: <m19@example.org>\nReferences:" + "".join(
            f" <m{n}@example.org>\n" for n in range(20)).replace("\n ", "\n  ")), False
    yield "comments", "comments nested in structured fields", (
        b"From: Ada (the (first) one) <ada(a)@(b)example.org> (end)\nTo: bob@example.net\n"
        b"Date: Tue (day), 3 Mar 2026 09:15:00 +0100 (CET)\nSubject: comments\nMIME-Version: 1 . (x) 0\n"
        b"Content-Type: text/plain (plain!) ; charset (set) = us-ascii\n\nHello.\n"), False
    yield "hops-49", "49 Received fields: just below the hop limit", received(49), False
    yield "hops-120", "120 Received fields: a loop", received(120), True
    yield "mbox-from", "a body line that begins with From, and quoted ones", plain(
        "mbox", "", "From here on\n>From there\n>>From nowhere\nFrom \n"), False
    yield "dots", "lines of dots that SMTP must stuff", plain(
        "dots", "", ".\n..\n...\n.dot\n..dot\n. \n.\n\n."), False


def received(count: int) -> bytes:
    line = "Received: from h{0}.example.org (h{0}.example.org [192.0.2.{0}])\n\tby h{1}.example.org with ESMTPS id r{0};\n\tTue, 3 Mar 2026 09:14:{2:02} +0100\n"
    return ("".join(line.format(n, n + 1, n % 60) for n in range(count)) + head("received") + "\nHello.\n").encode()


def addresses():
    def to(name: str, value: str, note: str):
        data = (f"From: ada@example.org\nTo: {value}\nDate: Tue, 3 Mar 2026 09:15:00 +0100\n"
                f"Message-ID: <{name}@example.org>\nSubject: {name}\n\nHello.\n")
        return name, note, data.encode(), False
    yield to("group", "Friends: bob@example.net, \"C, D\" <cd@example.com>;, undisclosed-recipients:;", "groups, one empty")
    yield to("quoted-local", "\"john smith\"@example.com, \"a\\\"b\\\\c\"@example.com, \"\"@example.com", "quoted local parts")
    yield to("route", "<@relay.example,@other.example:bob@example.net>", "source route (RFC 5322 4.4)")
    yield to("literal", "<root@[192.0.2.7]>, <root@[IPv6:2001:db8::7]>", "address literals")
    yield to("no-domain", "bob, <carol>, postmaster", "addresses without domain")
    yield to("many", ",\n ".join(f"Person {n} <p{n}@example.com>" for n in range(400)), "400 recipients in To")
    yield to("bad-list", ", ,bob@example.net,, <>, @, <<x@y>>, \"open <z@example.com>", "a list full of mistakes")
    yield to("utf8-local", "Jörg <jörg@exämple.org>, 用户@例子.广告", "SMTPUTF8 addresses in UTF-8")
    yield to("display", "Dr. A. B. Quill, Esq. <q@example.com>, =?utf-8?Q?=C3=96?= x <o@example.com>", "dots and commas unquoted")
    yield ("sender-reply", "several authors, Sender, Reply-To, resent fields", (
        "Resent-From: carol@example.com\nResent-To: dave@example.com\nResent-Date: Wed, 4 Mar 2026 10:00:00 +0000\n"
        "From: ada@example.org, bob@example.net\nSender: secretary@example.org\nReply-To: both@example.org\n"
        "To: list@example.com\nCc: x@example.com\nSubject: sender\n\nHello.\n").encode(), False)


def words():
    def subject(name: str, value: str, note: str):
        return name, note, (head(name, value) + "\nHello.\n").encode("utf-8"), False
    yield subject("word-b", "=?UTF-8?B?R3LDvMOfZQ==?=", "one base64 word")
    yield subject("word-q", "=?iso-8859-1?Q?Gr=FC=DFe_aus_K=F6ln?=", "one Q word with underscores")
    yield subject("word-split", "=?UTF-8?B?5p2x?= =?UTF-8?B?5Lqs?=\n =?UTF-8?Q?_end?=", "neighbours: the space between is not text")
    yield subject("word-split-char", "=?UTF-8?B?5p0=?= =?UTF-8?B?sQ==?=", "one character cut in two words (forbidden, common)")
    yield subject("word-language", "=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "with a language (RFC 2231)")
    yield subject("word-unknown", "=?x-klingon?Q?abc?= =?utf-8?X?abc?=", "unknown charset and encoding")
    yield subject("word-broken", "=?utf-8?B?!!!?= =?utf-8?Q?=ZZ=4?= =?utf-8?Q?open", "broken words")
    yield subject("word-inside", "a=?utf-8?Q?b?=c \"=?utf-8?Q?quoted?=\"", "words where they are not allowed")
    yield subject("word-long", "=?utf-8?Q?" + "=C3=BC" * 60 + "?=", "a word longer than 75 octets")
    yield subject("word-empty", "=?utf-8?Q??= x =?utf-8?B??=", "empty words")


def bodies():
    def mime(name: str, fields: str, body: bytes, note: str):
        return name, note, (head(name) + "MIME-Version: 1.0\n" + fields + "\n").encode() + body, False
    yield "headers-only", "headers and the empty line, no body", head("headers-only").encode() + b"\n", False
    yield "no-empty-line", "headers and nothing else", head("no-empty-line").encode(), False
    yield "body-only", "begins with an empty line: no header at all", b"\nonly a body\n", False
    yield "no-colon", "the first line is no header field", b"this is not a header\nHello.\n\nbody\n", False
    yield mime("eight-bit", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n",
               "Zażółć gęślą jaźń, наше всё, 日本語\n".encode(), "8-bit UTF-8")
    yield mime("eight-bit-latin1", "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n",
               "Grüße, café\n".encode("latin-1"), "8-bit ISO-8859-1")
    yield mime("eight-bit-lie", "Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n",
               "Grüße\n".encode(), "says 7bit and us-ascii, is neither")
    yield mime("every-byte", "Content-Type: text/plain; charset=x-unknown\nContent-Transfer-Encoding: 8bit\n",
               bytes(b for b in range(1, 256) if b not in (10, 13)) + b"\n", "every byte but NUL, CR and LF")
    yield mime("quoted-printable", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n",
               b"Gr=C3=BC=C3=9Fe and a soft=\n break, trailing =20\n=3D=\n\n", "quoted-printable with soft breaks")
    yield mime("quoted-printable-broken", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n",
               b"=C3=B =G0 = =\n=", "quoted-printable with mistakes")
    yield mime("base64-broken", "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n",
               b"SGVs bG8=\n*** noise ***\nSGVsbG8\n=\n", "base64 with noise and padding in the middle")
    yield mime("encoding-unknown", "Content-Type: text/plain\nContent-Transfer-Encoding: x-rot13\n", b"Uryyb.\n", "unknown transfer encoding")
    yield mime("flowed", "Content-Type: text/plain; format=flowed; delsp=yes\n", b"a paragraph \nthat flows \non.\n-- \nAda\n", "format=flowed")
    yield mime("html", "Content-Type: text/html; charset=utf-8\n", "<html><body><p>Grüße &amp; mehr</p></body></html>\n".encode(), "only HTML")
    yield mime("no-type-params", "Content-Type: text\n", b"Hello.\n", "a type without subtype")
    yield mime("type-garbage", "Content-Type: ;;;=\"\n", b"Hello.\n", "a type that is none")
    yield mime("params-2231", "Content-Type: application/pdf; name*0*=utf-8'de'Gr%C3%BC;\n name*1*=%C3%9Fe; name*2=\".pdf\"\n"
               "Content-Disposition: attachment; filename*=utf-8''%e2%82%ac%20rates.pdf\nContent-Transfer-Encoding: base64\n",
               b"JVBERi0=\n", "parameters in pieces and percent (RFC 2231)")
    yield mime("all-fields", "Content-Type: text/plain; charset=utf-8\nContent-ID: <part@example.org>\nContent-Description: =?utf-8?Q?d=C3=A9s?=\n"
               "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\nContent-Language: de, en\nContent-Location: https://example.org/x\n"
               "Content-Disposition: inline; filename=\"a b.txt\"; size=7\n", b"Hello.\n", "every field BODYSTRUCTURE shows")
    yield mime("no-final-newline", "Content-Type: text/plain\n", b"the last line has words", "ends where its last line ends")
    yield mime("blank-lines", "Content-Type: text/plain\n", b"\n" * 300, "300 empty lines")
    yield mime("uuencode", "Content-Type: text/plain\n", b"begin 644 cat.txt\n#0V%T\n`\nend\n", "an attachment of another age")


def multiparts():
    def multi(name: str, kind: str, boundary: str, body: str, note: str):
        text = head(name) + f"MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary={boundary}\n\n" + body
        return name, note, text.encode(), False
    text = "Content-Type: text/plain\n\nHello.\n"
    yield multi("alternative", "alternative", "b", f"preamble\n--b\n{text}--b\nContent-Type: text/html\n\n<p>Hello.\n--b--\nepilogue\n", "text and HTML")
    yield multi("boundary-quoted", "mixed", "\"a b'()+_,-./:=?\"", f"--a b'()+_,-./:=?\n{text}--a b'()+_,-./:=?--\n", "every character a boundary may have")
    yield multi("boundary-prefix", "mixed", "b", f"--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n{text}--bb--\n--b\n{text}--b--\n", "one boundary begins with the other")
    yield multi("boundary-missing", "mixed; x=y", "never", text, "the boundary never appears")
    yield multi("boundary-unclosed", "mixed", "b", f"--b\n{text}--b\n{text}", "no closing boundary")
    yield multi("boundary-padding", "mixed", "b", f"--b  \t\n{text}--b-- \t\nrest\n", "white space behind boundaries")
    yield multi("no-parts", "mixed", "b", "--b--\n", "closing boundary only")
    yield multi("empty-part", "mixed", "b", "--b\n--b\n\n--b\n\n\n--b--\n", "parts with nothing in them")
    yield multi("part-without-header", "mixed", "b", "--b\n\njust text\n--b--\n", "a part without header fields")
    yield multi("digest", "digest", "b", "--b\n\nFrom: x@example.org\nSubject: in the digest\n\none\n--b\nContent-Type: message/rfc822\n\nSubject: two\n\ntwo\n--b--\n", "digest: parts are messages by default")
    yield multi("forwarded", "mixed", "b", f"--b\n{text}--b\nContent-Type: message/rfc822\n\n{head('inner')}MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=c\n\n--c\n{text}--c--\n--b--\n", "a forwarded message with parts of its own")
    yield multi("forwarded-base64", "mixed", "b", "--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKeAo=\n--b--\n", "a forwarded message in base64 (forbidden)")
    yield multi("related", "related; type=\"text/html\"; start=\"<root@x>\"", "b", "--b\nContent-Type: text/html\nContent-ID: <root@x>\n\n<img src=\"cid:i@x\">\n--b\nContent-Type: image/gif\nContent-ID: <i@x>\nContent-Transfer-Encoding: base64\n\nR0lGODlhAQABAAAAACw=\n--b--\n", "HTML with its picture")
    yield multi("signed", "signed; micalg=pgp-sha256; protocol=\"application/pgp-signature\"", "b", f"--b\n{text}--b\nContent-Type: application/pgp-signature\n\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n--b--\n", "signed: every byte counts, trailing spaces too")
    yield multi("encrypted", "encrypted; protocol=\"application/pgp-encrypted\"", "b", "--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----\n\nhQ==\n-----END PGP MESSAGE-----\n--b--\n", "encrypted")
    yield multi("calendar", "alternative", "b", "--b\n" + text + "--b\nContent-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\nVERSION:2.0\nEND:VCALENDAR\n--b--\n", "an invitation")
    yield "nested-100", "100 multiparts inside each other: deeper than anybody describes", nested(100), False
    yield "nested-rfc822-60", "60 messages inside each other", nested_messages(60), False
    yield "parts-500", "500 small parts", many_parts(500), False
    yield "same-boundary", "inner and outer multipart share one boundary", (
        head("same") + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n--b\n\ntwo\n--b--\n").encode(), False


def nested(depth: int) -> bytes:
    out = head("nested") + "MIME-Version: 1.0\n"
    for n in range(depth):
        out += f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"
    out += "Content-Type: text/plain\n\nthe bottom\n"
    return (out + "".join(f"--b{n}--\n" for n in reversed(range(depth)))).encode()


def nested_messages(depth: int) -> bytes:
    return "".join(head(f"level{n}") + "MIME-Version: 1.0\nContent-Type: message/rfc822\n\n" for n in range(depth)).encode() + plain("bottom")


def many_parts(count: int) -> bytes:
    parts = "".join(f"--b\nContent-Type: text/plain; name=p{n}\n\npart {n}\n" for n in range(count))
    return (head("parts") + f"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n").encode()


def broken():
    yield "mime-version-missing", "a multipart without MIME-Version", plain(
        "nomime", "Content-Type: multipart/mixed; boundary=b\n", "--b\n\none\n--b--\n"), False
    yield "multipart-no-boundary", "a multipart without boundary parameter", plain(
        "noboundary", "MIME-Version: 1.0\nContent-Type: multipart/mixed\n", "--b\n\none\n--b--\n"), False
    yield "multipart-base64", "a multipart in base64 (forbidden)", plain(
        "multi64", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n",
        "LS1iCgpvbmUKLS1iLS0K\n"), False
    yield "header-fold-only", "a continuation line with nothing but spaces", plain("foldonly", "X-Fold: a\n   \n b\n"), False
    yield "first-line-folded", "begins with a continuation line", b" continued from nowhere\n" + plain("firstfold"), False
    yield "controls", "control characters in header and body", plain(
        "controls", "X-Control: a\x01b\x07c\x1b[31m\n", "bell \x07 escape \x1b[0m delete \x7f form feed \x0c\n"), False
    yield "truncated-part", "cut off inside a part's header", plain(
        "cut", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n", "--b\nContent-Ty"), False
    yield "param-unclosed", "an unclosed quoted parameter", plain(
        "unclosed", "MIME-Version: 1.0\nContent-Type: text/plain; charset=\"utf-8\n"), False
    yield "param-doubled", "the same parameter twice", plain(
        "paramtwice", "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8; charset=koi8-r\n"), False
    yield "bad-utf8", "says UTF-8 and is not", plain(
        "badutf8", "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n") + b"\xc3\x28 \xff\xfe \xed\xa0\x80\n", False
    yield "many-type-params", "Content-Type with 300 parameters", plain(
        "manyparams", "MIME-Version: 1.0\nContent-Type: text/plain" + "".join(f";\n p{n}=v{n}" for n in range(300)) + "\n"), False


def lists_and_reports():
    yield "mailing-list", "every List field, DKIM and ARC", plain(
        "list", "List-Id: Friends of tea <tea.example.org>\nList-Post: <mailto:tea@example.org>\n"
        "List-Unsubscribe: <https://example.org/u>, <mailto:u@example.org>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
        "Precedence: list\nAuto-Submitted: auto-generated\n"
        "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=k1; h=from:to:subject;\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\n"
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=example.org; s=k1; b=AAAA\n"), False
    yield "dsn", "a bounce (RFC 3464)", plain(
        "dsn", "Auto-Submitted: auto-replied\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n",
        "--b\n\nIt could not be delivered.\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.org\n\n"
        "Final-Recipient: rfc822; bob@example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no\n"
        "--b\nContent-Type: text/rfc822-headers\n\nSubject: lost\n--b--\n"), False
    yield "mdn", "a read receipt (RFC 8098)", plain(
        "mdn", "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\n",
        "--b\n\nIt was displayed.\n--b\nContent-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; bob@example.net\n"
        "Disposition: manual-action/MDN-sent-manually; displayed\n--b--\n"), False
    yield "partial", "message/partial and external-body", plain(
        "partial", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n",
        "--b\nContent-Type: message/partial; id=\"x@y\"; number=1; total=2\n\nSubject: x\n\nhalf\n"
        "--b\nContent-Type: message/external-body; access-type=URL; url=\"https://example.org/\"\n\nContent-Type: text/plain\n\n--b--\n"), False
