"""Messages made by rule from a fixed seed: ordinary mail in many shapes and sizes."""

import base64
import random

SEED = 20260303
WORDS = ("the of tea and harbour lantern meeting invoice garden window river report please attached thanks regards "
         "monday schedule kettle bicycle autumn quarterly letter mountain station copper velvet orchard number list").split()
# Charset, and words that need it.
SCRIPTS = [
    ("utf-8", "Zażółć gęślą jaźń äöü ß € 東京 наше всё مرحبا שלום नमस्ते 🙂"),
    ("iso-8859-1", "Grüße aus Köln, café crème, señor Ångström"),
    ("iso-8859-2", "Příliš žluťoučký kůň, zażółć gęślą jaźń"),
    ("iso-8859-15", "prix 20 € cœur"),
    ("windows-1252", "“quoted” – dash… €"),
    ("windows-1251", "Съешь ещё этих мягких булок"),
    ("koi8-r", "Широкая электрификация южных губерний"),
    ("iso-2022-jp", "日本語の件名と本文です"),
    ("shift_jis", "半角と全角の漢字カナ"),
    ("euc-jp", "いろはにほへと散りぬるを"),
    ("gb18030", "中文邮件主题和正文"),
    ("big5", "繁體中文郵件"),
    ("euc-kr", "한국어 메일 제목"),
    ("iso-8859-7", "Ξεσκεπάζω την ψυχοφθόρα"),
    ("windows-1255", "שלום עולם"),
    ("tis-620", "สวัสดีชาวโลก"),
]
PEOPLE = [("Ada Quill", "ada@example.org"), ("Bob Tern", "bob@example.net"), ("Carol Fen", "carol@example.com"),
          ("Dave Moor", "dave@sub.example.org"), ("Eve Lark", "eve+news@example.net")]


class Maker:
    def __init__(self):
        self.random = random.Random(SEED)
        self.count = 0

    def bytes(self, size: int) -> bytes:
        return self.random.getrandbits(8 * size).to_bytes(size, "big") if size else b""

    def words(self, count: int) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(count))

    def paragraphs(self, size: int) -> str:
        lines, length = [], 0
        while length < size:
            line = self.words(self.random.randint(1, 12)) if self.random.random() > 0.12 else ""
            lines.append(line)
            length += len(line) + 2
        return "\n".join(lines) + "\n"

    def head(self, subject: str) -> str:
        self.count += 1
        author, reader = self.random.sample(PEOPLE, 2)
        day, hour = self.random.randint(1, 28), self.random.randint(0, 23)
        zone = self.random.choice(["+0000", "+0100", "-0800", "+0530", "-0000"])
        return (f"From: {author[0]} <{author[1]}>\nTo: {reader[0]} <{reader[1]}>\n"
                f"Date: {day} Mar 2026 {hour:02}:{self.random.randint(0, 59):02}:{self.random.randint(0, 59):02} {zone}\n"
                f"Message-ID: <g{self.count}.{self.random.getrandbits(48):x}@example.org>\nSubject: {subject}\nMIME-Version: 1.0\n")


def word(text: str, charset: str, encoding: str) -> str:
    data = text.encode(charset)
    if encoding == "B":
        return f"=?{charset}?B?{base64.b64encode(data).decode()}?="
    quoted = "".join(chr(b) if chr(b).isalnum() and b < 128 else "_" if b == 32 else f"={b:02X}" for b in data)
    return f"=?{charset}?Q?{quoted}?="


def quoted_printable(data: bytes) -> str:
    out, line = [], ""
    for byte in data:
        if byte == 10:
            out.append(line)
            line = ""
            continue
        piece = chr(byte) if 33 <= byte <= 126 and byte != 61 else f"={byte:02X}"
        if len(line) + len(piece) > 75:
            out.append(line + "=")
            line = ""
        line += piece
    return "\n".join([*out, line]) + "\n"


def base64_lines(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return "\n".join(text[at:at + 76] for at in range(0, len(text), 76)) + "\n"


def messages():
    """(shape, note, bytes, refused)"""
    make = Maker()
    yield from texts(make)
    yield from charsets(make)
    yield from attachments(make)
    yield from trees(make)
    yield from huge_headers(make)
    yield from threads(make)
    yield from mutations(make)


def texts(make: Maker):
    for size in [0, 1, 10, 100, 500, 1000, 2000, 4000, 4096, 8000, 16_000, 32_000] * 3:
        data = make.head(make.words(5)) + "Content-Type: text/plain; charset=us-ascii\n\n" + (make.paragraphs(size) if size else "")
        yield "text", f"plain text of about {size} bytes", data.encode(), False
    # Around the size up to which a body travels inside the batch.
    for size in [65_000, 65_536, 66_000, 131_072, 200_000]:
        data = make.head("size") + "\n" + make.paragraphs(size)
        yield "text-large", f"plain text of about {size} bytes, around the limit for small bodies", data.encode(), False


def charsets(make: Maker):
    for charset, text in SCRIPTS:
        for encoding in "BQ":
            head = make.head(word(text, charset, encoding))
            body = (text + "\n") * 3
            fields = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: "
            if encoding == "B":
                data = head + fields + "base64\n\n" + base64_lines(body.encode(charset))
            else:
                data = head + fields + "quoted-printable\n\n" + quoted_printable(body.encode(charset))
            yield "charset", f"{charset} by {encoding} words and its body encoding", data.encode(), False
        raw = (make.head("8-bit " + charset) + fields + "8bit\n\n").encode() + text.encode(charset) + b"\n"
        yield "charset-8bit", f"{charset} as 8-bit body", raw, False


def attachment(make: Maker, size: int, kind: str, name: str) -> str:
    return (f"Content-Type: {kind}; name=\"{name}\"\nContent-Disposition: attachment; filename=\"{name}\"\n"
            f"Content-Transfer-Encoding: base64\n\n{base64_lines(make.bytes(size))}")


def attachments(make: Maker):
    kinds = [("application/pdf", "report.pdf"), ("image/jpeg", "photo.jpg"), ("application/zip", "a b.zip"),
             ("application/octet-stream", "data"), ("text/csv", "numbers.csv")]
    for size in [0, 1, 2, 57, 58, 1000, 4000, 12_000, 30_000, 45_000, 48_000, 60_000, 90_000, 150_000]:
        for count in (1, 2):
            parts = "".join(f"--=_{make.count}\n" + attachment(make, size // count, *make.random.choice(kinds)) for _ in range(count))
            number = make.count
            data = (make.head("attached: " + make.words(3)) + f"Content-Type: multipart/mixed; boundary=\"=_{number}\"\n\n"
                    f"This is a multi-part message in MIME format.\n--=_{number}\nContent-Type: text/plain\n\n{make.paragraphs(200)}{parts}--=_{number}--\n")
            yield "attachment", f"{count} attachment(s), {size} bytes together", data.encode(), False


def trees(make: Maker):
    for index in range(60):
        depth = make.random.randint(1, 6)
        data = make.head(f"tree {index}") + tree(make, depth, f"t{index}")
        yield "tree", f"random multipart tree, depth to {depth}", data.encode(), False


def tree(make: Maker, depth: int, name: str) -> str:
    choice = make.random.random()
    if depth == 0 or choice < 0.15:
        return leaf(make)
    if choice < 0.3:
        return "Content-Type: message/rfc822\n\n" + make.head("inner") + tree(make, depth - 1, name + "m")
    kind = make.random.choice(["mixed", "alternative", "related", "parallel", "x-unknown"])
    parts = "".join(f"--{name}\n{tree(make, depth - 1, f'{name}.{n}')}\n" for n in range(make.random.randint(1, 4)))
    before = make.words(4) + "\n" if make.random.random() < 0.3 else ""
    return f"Content-Type: multipart/{kind}; boundary=\"{name}\"\n\n{before}{parts}--{name}--\n"


def leaf(make: Maker) -> str:
    choice = make.random.randrange(5)
    if choice == 0:
        return attachment(make, make.random.randint(0, 3000), "image/png", "x.png")
    if choice == 1:
        return "Content-Type: text/html\n\n<p>" + make.words(20) + "</p>\n"
    if choice == 2:
        text = make.random.choice(SCRIPTS)[1]
        return "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n" + quoted_printable((text + "\n").encode())
    if choice == 3:
        return "\n" + make.words(8) + "\n"
    return "Content-Type: text/plain\nContent-ID: <" + make.words(1) + "@x>\n\n" + make.paragraphs(make.random.randint(0, 800))


def huge_headers(make: Maker):
    for lines in [50, 200, 800, 2500]:
        fields = "".join(f"X-Field-{n}: {make.words(8)}\n" for n in range(lines))
        yield "huge-header", f"{lines} header fields", (make.head("fields") + fields + "\nHello.\n").encode(), False
    for folds in [100, 1000, 3000]:
        value = "".join(f" {make.words(6)}\n" for _ in range(folds))
        yield "huge-header", f"one field folded {folds} times", (make.head("folds") + "X-Folded:" + value + "\nHello.\n").encode(), False
    names = ",\n ".join(f"\"{make.words(2)}\" <p{n}@example.com>" for n in range(2000))
    yield "huge-header", "2000 addresses in Cc", (make.head("cc") + f"Cc: {names}\n\nHello.\n").encode(), False


def threads(make: Maker):
    for thread in range(5):
        ids: list[str] = []
        subject = make.words(4)
        for depth in range(5):
            head = make.head(subject if depth == 0 else "Re: " * make.random.randint(1, 2) + subject)
            fields = ""
            if ids:
                fields = f"In-Reply-To: {ids[-1]}\nReferences: " + "\n ".join(ids) + "\n"
            ids.append(head.split("Message-ID: ")[1].split("\n")[0])
            quoted = "".join(f"> {line}\n" for line in make.paragraphs(200).splitlines())
            data = head + fields + "\n" + quoted + make.paragraphs(150)
            yield "thread", f"thread {thread}, message {depth}", data.encode(), False


def mutations(make: Maker):
    """Ordinary messages with bytes changed, lines lost and lines doubled: whatever they are, they come back as they are."""
    for index in range(40):
        data = bytearray((make.head(f"mutation {index}") + tree(make, 3, f"m{index}")).encode())
        for _ in range(make.random.randint(1, 30)):
            at = make.random.randrange(len(data))
            if data[at] != 10:
                data[at] = make.random.choice([b for b in range(1, 256) if b not in (10, 13)])
        lines = bytes(data).split(b"\n")
        for _ in range(make.random.randint(0, 4)):
            at = make.random.randrange(len(lines))
            lines[at:at + 1] = make.random.choice([[], [lines[at], lines[at]], [b"", lines[at]]])
        yield "mutation", "an ordinary message with bytes and lines changed", b"\n".join(lines), False
