"""Writes signed messages, and what dkimpy (Debian: python3-dkim) finds when it verifies them.

    messages.py FOLDER COUNT SEED

FOLDER gets one file a message, `keys.json` (names and texts of the key records) and `results.jsonl`: for each message its
file, what it is about, and for each of its signatures whether dkimpy accepts it. The signatures are computed with dkimpy's
canonicalisation; most messages are changed after that. Keys are new in each run, everything else follows from SEED.

dkimpy deviates from RFC 6376 in the following, which no message has: white space before a colon or after the value of `b=`,
a first tag `b=` without white space before it, control characters at the ends of a field, and under "relaxed" a last line that
ends in white space and not in CRLF. It ignores `h=` and `t=s` of keys.
"""

import base64
import json
import random
import subprocess
import sys
from pathlib import Path

import dkim
import nacl.signing
from dkim.canonicalization import CanonicalizationPolicy
from dkim.crypto import RSASSA_PKCS1_v1_5_sign, parse_pem_private_key

# Seconds of Unix time; the test has the same.
NOW = 1_700_000_000
# Octets of the body of the largest message.
LARGE = 50 * 1024 * 1024
DOMAIN = b"a.example"


class HashOf:
    """What dkimpy's functions take as a hash."""

    def __init__(self):
        self.hash = dkim.HASH_ALGORITHMS[b"rsa-sha256"]()
        self.name = self.hash.name

    def update(self, data):
        self.hash.update(data)

    def digest(self):
        return self.hash.digest()


class RsaKey:
    algorithm = b"rsa-sha256"

    def __init__(self, bits, bare=False):
        openssl = lambda *arguments, **options: subprocess.run(
            ["openssl", *arguments], check=True, capture_output=True, **options
        ).stdout
        pem = openssl("genrsa", "-traditional", str(bits))
        form = "-RSAPublicKey_out" if bare else "-pubout"
        public = openssl("rsa", form, "-outform", "DER", input=pem)
        self.private = parse_pem_private_key(pem)
        self.record = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()

    def sign(self, hashed):
        return RSASSA_PKCS1_v1_5_sign(hashed, self.private)


class Ed25519Key:
    algorithm = b"ed25519-sha256"

    def __init__(self, seed):
        self.private = nacl.signing.SigningKey(seed)
        public = bytes(self.private.verify_key)
        self.record = "k=ed25519; p=" + base64.b64encode(public).decode()

    def sign(self, hashed):
        return self.private.sign(hashed.digest()).signature


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.keys = {
            b"rsa1024": RsaKey(1024),
            b"rsa2048": RsaKey(2048),
            b"bare": RsaKey(1024, bare=True),
            b"short": RsaKey(768),
            b"ed25519": Ed25519Key(self.random.randbytes(32)),
            b"revoked": Ed25519Key(self.random.randbytes(32)),
            b"missing": Ed25519Key(self.random.randbytes(32)),
            b"other": Ed25519Key(self.random.randbytes(32)),
            b"later": Ed25519Key(self.random.randbytes(32)),
        }
        self.records = {self.name(selector): key.record for selector, key in self.keys.items()}
        self.records[self.name(b"revoked")] = "v=DKIM1; k=ed25519; p="
        self.records[self.name(b"other")] = self.records[self.name(b"ed25519")]
        self.records[self.name(b"later")] = self.records[self.name(b"later")].replace("k=", "v=DKIM2; k=")
        del self.records[self.name(b"missing")]

    @staticmethod
    def name(selector):
        return (selector + b"._domainkey." + DOMAIN).decode()

    def chance(self, probability):
        return self.random.random() < probability

    # Messages

    def words(self, least=0):
        word = lambda: self.random.choice(
            [b"a", b"word", b"of", b".", b"..", b"x=y;", b"\xc3\xa4\xc3\xb6", b"\xff\xfe", b"\x00", b"\x0b\x01", b"a\rb", b"=20"]
        )
        space = lambda: self.random.choice([b" ", b" ", b" ", b"  ", b"\t", b" \t "])
        count = self.random.randint(least, 6)
        return b"".join(word() + space() for _ in range(count)) + b"end" if count else b""

    def line(self):
        kind = self.random.random()
        if kind < 0.15:
            return b""
        if kind < 0.2:
            return self.random.choice([b" ", b"\t", b" \t "])
        line = self.random.choice([b"", b"", b" ", b"\t\t"]) + self.words()
        return line + self.random.choice([b"", b"", b"", b" ", b" \t", b"\r", b"\x0c"])

    def body(self):
        kind = self.random.random()
        if kind < 0.06:
            return b""
        if kind < 0.1:
            return b"\r\n" * self.random.randint(1, 3)
        lines = [self.line() for _ in range(self.random.randint(1, 12))]
        end = self.random.choice([b"\r\n", b"\r\n", b"\r\n", b"\r\n\r\n\r\n", b"\r\n \r\n", b""])
        if not end:
            lines[-1] = b"last"
        return b"\r\n".join(lines) + end

    def fields(self):
        fold = lambda text: text.replace(b" ", b"\r\n ", 1) if self.chance(0.4) else text
        fields = [b"From: A <a@a.example>", b"To:" + fold(b" b@b.example, c@c.example")]
        for name in [b"Subject", b"subject", b"DATE", b"Message-ID", b"X-Empty", b"Received", b"Received"]:
            if self.chance(0.6):
                value = b"" if name == b"X-Empty" else fold(b" first " + self.words(1))
                fields.append(name + b":" + value + (b" \t" if self.chance(0.1) else b""))
        self.random.shuffle(fields)
        return b"".join(field + b"\r\n" for field in fields)

    # Signatures

    def sign(self, message, selector, policy, length=None, extra=()):
        """The message with a signature of dkimpy's canonicalisation and of our own tags."""
        key = self.keys[selector]
        headers, body = dkim.rfc822_parse(message)
        canonical = CanonicalizationPolicy.from_c_value(policy)
        octets = canonical.canonicalize_body(body)
        tags = [(b"v", b"1"), (b"a", key.algorithm), (b"d", DOMAIN), (b"s", selector), *extra]
        if policy != b"simple/simple" or self.chance(0.5):
            tags.append((b"c", policy))
        if length is not None:
            length = min(length, len(octets))
            octets = octets[:length]
            tags.append((b"l", str(length).encode()))
        hashed = HashOf()
        hashed.update(octets)
        tags.append((b"bh", base64.b64encode(hashed.digest())))
        names = [b"from"] + [name.lower() for name, _ in headers if self.chance(0.8) and name.lower() != b"from"]
        names += self.random.choice([[], [], [b"from"], [b"x-missing", b"subject", b"received"]])
        self.random.shuffle(names)
        case = self.random.choice([bytes.lower, bytes.title])
        tags.append((b"h", self.random.choice([b":", b" : ", b":\r\n\t"]).join(map(case, names))))
        tags.append((b"b", b"*"))
        self.random.shuffle(tags)
        space = lambda: self.random.choice([b"", b"", b" ", b"\r\n ", b"\r\n\t "])
        pair = lambda name, value: space() + name + (b"" if name == b"b" else space()) + b"=" + value
        value = b" " + b";".join(pair(*tag) for tag in tags) + self.random.choice([b"", b";"]) + b"\r\n"
        head, tail = value.split(b"=*")
        field = (b"DKIM-Signature", head + b"=" + tail)
        hashed = HashOf()
        dkim.hash_headers(hashed, canonical, canonical.canonicalize_headers(headers), names, field, None)
        signature = base64.b64encode(key.sign(hashed))
        width = self.random.choice([40, 72, 500])
        signature = b"\r\n ".join(signature[at : at + width] for at in range(0, len(signature), width))
        return b"DKIM-Signature:" + head + b"=" + signature + tail + message

    # Changes

    def change(self, message):
        """The message with a change, and what that is about."""
        head, blank, body = message.partition(b"\r\n\r\n")
        changes = {
            "unchanged": lambda: message,
            "body octet": lambda: head + blank + body.replace(b"e", b"f", 1),
            "body, white space": lambda: head + blank + body.replace(b" ", b"\t ", 1).replace(b"d\r\n", b"d \r\n", 1),
            "body, empty lines at the end": lambda: message + b"\r\n" * self.random.randint(1, 40),
            "body, no line end": lambda: message[:-2] if message.endswith(b"d\r\n") else message,
            "body, text at the end": lambda: message + b"added: text\r\n",
            "body, cut": lambda: head + blank + body[: len(body) // 2].rstrip() + b"\r\n",
            "bare LF": lambda: message.replace(b"\r\n", b"\n"),
            "some bare LF": lambda: b"".join(
                line + self.random.choice([b"\n", b"\r\n"]) for line in message.split(b"\r\n")[:-1]
            ),
            "field octet": lambda: message.replace(b"@b.example", b"@d.example", 1),
            "field, case of a name": lambda: message.replace(b"\r\nTo:", b"\r\ntO:", 1),
            "field, white space": lambda: message.replace(b"b.example, c", b"b.example,\r\n\t c", 1),
            "field added below": lambda: head + b"\r\nReceived: added" + blank + body,
            "field added above": lambda: b"Received: added\r\n" + message,
            "From added below": lambda: head + b"\r\nFrom: d@d.example" + blank + body,
            "From added above": lambda: b"From: d@d.example\r\n" + message,
            "field removed": lambda: message.replace(b"\r\nReceived:", b"\r\nX-Received:", 1),
            "signature, white space": lambda: message.replace(b"; ", b";\r\n\t", 1),
            "signature, tag missing": lambda: message.replace(self.random.choice([b"v=", b"d=", b"bh=", b"h="]), b"n=", 1),
            "signature, other version": lambda: message.replace(b"v=1", b"v=2", 1),
            "signature, tag twice": lambda: message.replace(b"DKIM-Signature:", b"DKIM-Signature: s=x; ", 1),
            "signature, other algorithm": lambda: message.replace(b"-sha256", b"-sha512", 1),
        }
        about = "unchanged" if self.chance(0.4) else self.random.choice(list(changes))
        return changes[about](), about

    def message(self):
        message = self.fields() + b"\r\n" + self.body()
        if self.chance(0.03):
            # It ends within the header section.
            message = message.split(b"\r\n\r\n")[0] + b"\r\n"
        abouts = []
        for _ in range(self.random.choice([1, 1, 1, 1, 2, 3])):
            policies = [b"simple/simple", b"simple/relaxed", b"relaxed/simple", b"relaxed/relaxed", b"relaxed", b"simple"]
            policy = self.random.choice(policies)
            good = self.chance(0.85)
            selectors = [b"rsa1024", b"rsa2048", b"bare", b"ed25519", b"ed25519"] if good else list(self.keys)
            selector = self.random.choice(selectors)
            length = self.random.choice([0, 5, 30, 10_000]) if self.chance(0.2) else None
            extra = self.random.choice(
                [
                    (),
                    ((b"q", b"dns/txt"), (b"t", str(NOW - 1000).encode())),
                    ((b"i", b"x@deep.a.example"),),
                    ((b"i", b"@a.example"), (b"unknown", b"a b:c")),
                    ((b"x", str(NOW + 100_000).encode()),),
                    ((b"x", str(NOW - 100_000).encode()),) if self.chance(0.3) else (),
                    ((b"i", b"x@b.example"),) if self.chance(0.3) else (),
                ]
            )
            message = self.sign(message, selector, policy, length, extra)
            limit = "" if length is None else f" l={length}"
            abouts.append(f"{policy.decode()} {selector.decode()}{limit}")
        message, about = self.change(message)
        return message, f"{about}: {', '.join(abouts)}"

    def large(self):
        block = b"".join(self.line() + b"\r\n" for _ in range(1_000)) + b"end\r\n"
        body = block * (LARGE // len(block) + 1)
        message = self.sign(self.fields() + b"\r\n" + body, b"rsa2048", b"relaxed/relaxed")
        return self.sign(message, b"ed25519", b"simple/simple"), "large"

    # Results

    def verify(self, message):
        """Whether dkimpy accepts each signature, from the top."""
        records = lambda name, timeout=5: self.records.get(name.decode().rstrip("."))
        results = []
        signatures = [name for name, _ in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature"]
        for index in range(len(signatures)):
            try:
                results.append(bool(dkim.DKIM(message).verify(index, records)))
            except dkim.DKIMException:
                results.append(False)
        return results


def main(folder, count, seed):
    folder = Path(folder)
    # dkimpy reads the clock for t= and x=.
    dkim.time.time = lambda: NOW
    generator = Generator(int(seed))
    (folder / "keys.json").write_text(json.dumps(generator.records))
    with open(folder / "results.jsonl", "w") as results:
        for number in range(int(count)):
            message, about = generator.large() if number == 0 else generator.message()
            name = f"{number:04}.eml"
            (folder / name).write_bytes(message)
            line = {"file": name, "about": about, "passes": generator.verify(message)}
            results.write(json.dumps(line) + "\n")


main(*sys.argv[1:])
