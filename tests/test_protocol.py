"""The wire's codec, its golden vectors (vectors.json), and docs/protocol.md, which must all say the same."""

import ast
import json
import random
import re
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zbackbone import protocol as p
from zbackbone import topics
from zbackbone.auth import keys, policy
from zbackbone.errors import Garbled, Misuse
from zbackbone.router import admin, server
from zbackbone.topics import live_filter, live_key

HERE = Path(__file__).parent
DOCUMENT = (HERE.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
VECTORS = json.loads((HERE / "vectors.json").read_text(encoding="utf-8"))
WORD_OF = {command: command.__name__.upper() for command, _ in p.TABLE.values()}
COMMAND_OF = {word: command for command, word in WORD_OF.items()}

quick = settings(max_examples=300, deadline=None)


def named(*keys, garbled=False):
    """The vectors that have these keys, each under its name."""
    rows = [v for v in VECTORS if all(k in v for k in keys) and ("garbled" in v) is garbled]
    assert rows
    return pytest.mark.parametrize("vector", rows, ids=lambda v: v["name"])


def plain(value):
    """A JSON value of vectors.json as the codec has it: {"hex": ...} is bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if set(value) == {"hex"} else {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def command_of(vector):
    return COMMAND_OF[vector["command"]](**plain(vector["fields"]))


def items_of(vector):
    return tuple((bytes.fromhex(i["body"]), i["headers"]) if "headers" in i else bytes.fromhex(i["body"])
                 for i in vector["items"])


def refused(read, *given):
    """Whether it is refused as garbled; anything else that is raised is a failure of the test."""
    try:
        read(*given)
    except Garbled as error:
        assert error.code == "garbled" and error.text
        return True
    return False


# The vectors, both ways

@named("command")
def test_a_header_is_read_as_its_command(vector):
    command = p.decode(bytes.fromhex(vector["header"]))
    assert command == command_of(vector)
    assert type(command) is COMMAND_OF[vector["command"]]
    assert p.decode(memoryview(bytes.fromhex(vector["header"]))) == command


@named("command")
def test_a_command_is_written_as_its_header(vector):
    written = p.encode(command_of(vector)).hex()
    assert (written == vector["header"]) is not vector.get("reads_only", False)


@named("envelope", "fields")
def test_an_envelope_is_read_and_written_as_its_bytes(vector):
    packed = bytes.fromhex(vector["envelope"])
    envelope = p.Envelope(**plain(vector["fields"]))
    assert p.unpack_envelope(packed) == envelope
    assert (p.pack_envelope(envelope) == packed) is not vector.get("reads_only", False)


@named("batch", "items")
def test_a_batch_is_read_and_written_as_its_bytes(vector):
    packed = bytes.fromhex(vector["batch"])
    assert p.unpack_batch(packed, vector["messages"]) == items_of(vector)
    assert p.pack_batch(items_of(vector)) == packed


@named("command", "body")
def test_a_body_is_the_batch_that_its_header_announces(vector):
    command = command_of(vector)
    if type(command) in (p.Deliver, p.Live):
        assert p.unpack_batch(bytes.fromhex(vector["body"]), p.unpack_envelope(command.envelope).messages)
    elif type(command) is p.Send:
        assert p.unpack_batch(bytes.fromhex(vector["body"]), command.messages)
    else:
        assert vector["body"] == ""


@named("topic")
def test_a_topics_key_is_its_bytes(vector):
    assert live_key(vector["topic"]).hex() == vector["key"]


@named("pattern")
def test_a_patterns_filter_is_its_bytes(vector):
    assert live_filter(vector["pattern"]).hex() == vector["filter"]


@named("header", garbled=True)
def test_a_malformed_header_is_refused(vector):
    assert refused(p.decode, bytes.fromhex(vector["header"]))


@named("batch", garbled=True)
def test_a_malformed_batch_is_refused(vector):
    assert refused(p.unpack_batch, bytes.fromhex(vector["batch"]), vector["messages"])


@named("envelope", garbled=True)
def test_a_malformed_envelope_is_refused(vector):
    assert refused(p.unpack_envelope, bytes.fromhex(vector["envelope"]))


def test_every_vector_is_of_a_form_that_the_tests_above_read():
    forms = {("header", "body", "command", "fields"), ("envelope", "fields"), ("batch", "messages", "items"),
             ("key", "topic"), ("filter", "pattern"), ("header", "garbled"), ("envelope", "garbled"),
             ("batch", "messages", "garbled")}
    assert {tuple(k for k in v if k not in ("name", "reads_only")) for v in VECTORS} == forms
    assert len({v["name"] for v in VECTORS}) == len(VECTORS)


def test_every_command_has_a_vector_that_is_written_too():
    assert {v["command"] for v in VECTORS if "command" in v and "reads_only" not in v} == set(COMMAND_OF)


# The document

def tables():
    """The document's tables: a list of rows, each a list of cells, without head and rule."""
    rows = []
    for line in DOCUMENT.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            yield rows[2:]
            rows = []


def codes(head):
    """The `codes` in the first column of the table under a line that begins so."""
    after = DOCUMENT[DOCUMENT.index(f"| {head} |"):].split("\n\n", 1)[0]
    return [code for line in after.splitlines()[2:] for code in re.findall(r"`([^`]+)`", line.split("|")[1])]


def hexes_of_the_document():
    """name -> frames, of every hex block."""
    found = {}
    for block in re.findall(r"^```hex\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\n +", " ", re.sub(r" *;.*", "", block)).splitlines():
            name, _, rest = line.partition(" ")
            assert name not in found, f"{name} is there twice"
            frames = ["".join(frame.split()) for frame in rest.split("|")]
            found[name] = ["" if frame == "-" else frame for frame in frames]
    return found


def test_every_hex_line_of_the_document_is_a_vector_and_every_vector_is_in_the_document():
    def frames(vector):
        if "command" in vector:
            return [vector["header"], vector["body"]] if vector["body"] else [vector["header"]]
        return [next(vector[k] for k in ("header", "batch", "envelope", "key", "filter") if k in vector)]

    assert hexes_of_the_document() == {v["name"]: frames(v) for v in VECTORS}


# Values that tell the types apart: each type takes its own, and none of the others'.
PROBES = {
    "uint": ([0, 1, 2**63 - 1], [-1, 2**63, True, 1.0, "1", None]),
    "way": ([1, 2, 3], [0, 4, True]),
    "bool": ([True, False], [0, 1, None]),
    "id8": ([bytes(8)], [bytes(7), bytes(9), "8" * 8]),
    "key": ([bytes(32)], [bytes(31), bytes(33)]),
    "bin": ([b"", bytes(9)], ["", []]),
    "text64": (["", "x" * 64, "é" * 32], ["x" * 65, "é" * 33, b"x"]),
    "text255": (["", "x" * 255, "é" * 127], ["x" * 256, "é" * 128, b"x"]),
    "text1024": (["", "x" * 1024], ["x" * 1025, b"x"]),
    "map": ([{}, {"a": 1}], [[], None]),
    "list": ([[], [1]], [{}, None, ()]),
}


def signatures():
    """kind -> word, fields, types, and whether there is a batch, as the document's sections have them."""
    found = re.findall(r"^### (\d+) ([A-Z]+)\n`([A-Z]+)([^`]*)`( \+ batch)?$", DOCUMENT, re.MULTILINE)
    for kind, title, word, fields, batch in found:
        assert title == word
        yield int(kind), word, tuple(tuple(f.split(":")) for f in fields.split()), bool(batch)


def test_every_command_has_its_section_with_its_fields():
    assert {kind: (word, tuple(name for name, _ in fields)) for kind, word, fields, _ in signatures()} \
        == {kind: (WORD_OF[command], command._fields) for kind, (command, _) in p.TABLE.items()}
    assert len(list(signatures())) == len(re.findall(r"^### ", DOCUMENT, re.MULTILINE)) == len(p.TABLE)


@pytest.mark.parametrize("signature", list(signatures()), ids=lambda s: s[1])
def test_a_field_takes_the_values_of_its_type_and_no_others(signature):
    kind, _, fields, _ = signature
    for (name, kind_of_value), check in zip(fields, p.TABLE[kind][1], strict=True):
        good, bad = PROBES[kind_of_value]
        assert all(check(value) for value in good), name
        assert not any(check(value) for value in bad), name


def test_an_envelopes_fields_are_the_documents():
    line = re.search(r"envelope  = msgpack array \[(.*)\]", DOCUMENT)[1]
    fields = [field.split(":") for field in line.split(", ")]
    assert tuple(name for name, _ in fields) == p.Envelope._fields
    good = {"sender": "a", "time_ms": 0, "way": 1, "address": "", "outbox": bytes(8), "number": 1, "messages": 1}
    for name, kind in fields:
        for value in PROBES[kind][0]:
            assert not refused(p.unpack_envelope, msgpack.packb(list((good | {name: value}).values())))
        for value in PROBES[kind][1]:
            assert refused(p.unpack_envelope, msgpack.packb(list((good | {name: value}).values())))


def test_only_send_deliver_and_live_have_a_batch():
    assert [word for _, word, _, batch in signatures() if batch] == ["SEND", "DELIVER", "LIVE"]
    assert all(v["command"] in ("SEND", "DELIVER", "LIVE") for v in VECTORS if v.get("body"))


def test_every_refusal_is_explained_and_no_other():
    assert codes("code | comes in | means") == list(p.REFUSALS)


def test_every_code_of_the_library_in_the_document_is_in_the_source():
    source = "".join(path.read_text() for path in (HERE.parent / "zbackbone").rglob("*.py"))
    for code in codes("code | means"):
        assert f'"{code}"' in source or f"f\"{code.partition('-')[0]}-" in source, code
        assert code not in p.REFUSALS


def test_every_limit_is_in_the_document_with_its_value():
    of_the_wire = {name: value for name, value in vars(p).items()
                   if name.isupper() and type(value) is int and name not in ("VERSION", "SEND", "PUBLISH", "BROADCAST")}
    neighbours = {
        "NAME_BYTES_MAX": topics.NAME_BYTES_MAX, "TOPIC_BYTES_MAX": topics.TOPIC_BYTES_MAX,
        "GRANT_PATTERNS_MAX": policy.GRANT_PATTERNS_MAX, "INVITATION_S_MAX": admin.INVITATION_S_MAX,
        "HANDSHAKE_MS": server.HANDSHAKE_MS, "CLAIM_S": server.CLAIM_S, "FILTER_BYTES_MAX": server.FILTER_BYTES_MAX,
    }
    limits = next(rows for rows in tables() if any("BODY_BYTES_MAX" in row[0] for row in rows))
    assert {row[0].strip("`"): int(row[1].replace(",", "")) for row in limits} == of_the_wire | neighbours
    assert all(row[2] for row in limits)


def test_the_ways_and_the_version_are_the_documents():
    assert (p.SEND, p.PUBLISH, p.BROADCAST, p.VERSION) == (1, 2, 3, 1)
    assert "1 to a client, 2 to a topic, 3 to everybody" in DOCUMENT
    assert DOCUMENT.startswith(f"# The wire protocol, version {p.VERSION}\n")


def test_every_counter_of_status_is_in_the_document():
    section = DOCUMENT.split("### 22 STATUS")[1].split("```hex")[0].split("start:")[1]
    assert re.findall(r"`(\w+)`", section) == list(admin.COUNTERS)


def test_the_documents_join_string_and_profile_are_read_as_it_says(tmp_path):
    text = re.search(r"^ +(zbjoin1:127\S+)$", DOCUMENT, re.MULTILINE)[1]
    invitation = keys.from_join_string(text)
    assert invitation == ("127.0.0.1:5570", bytes(range(32)), bytes(range(32, 64)))
    assert keys.to_join_string(invitation) == text
    path = tmp_path / "glider-1.profile"
    keys.write_secret(path, re.search(r"^```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[1])
    profile = keys.load_profile(path)
    assert profile == ("glider-1", "127.0.0.1:5570", bytes(range(32)), *keys.pair_of(bytes(range(32, 64))))
    assert json.loads(keys.profile_text(profile)) == json.loads(path.read_text())


def test_the_test_plan_names_tests_that_are_there():
    plan = DOCUMENT.split("## 16. Test plan")[1]
    plays = [play for text in re.findall(r"^\*\*[^*]+\*\* (.*?)\.$", plan, re.MULTILINE | re.DOTALL)
             for play in " ".join(text.split()).split("; ")]
    source = ast.parse((HERE / "test_raw_client.py").read_text(encoding="utf-8"))
    there = [node.name for node in source.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert ["test_" + play.replace(" ", "_") for play in plays] == there


# Whatever comes: a command, or Garbled, and nothing else

def survives(read, write, *given):
    """Reads; what it makes of it reads the same again when written, or it is refused."""
    try:
        value = read(*given)
    except Garbled:
        return
    again = read(write(value), *given[1:])
    assert repr(again) == repr(value)       # repr, since a float in a map may be no number


def survives_everywhere(data):
    survives(p.decode, p.encode, data)
    survives(p.unpack_envelope, p.pack_envelope, data)
    for count in (0, 1, 2):
        survives(p.unpack_batch, p.pack_batch, data, count)


msgpack_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=40) | st.datetimes().map(lambda _: msgpack.Timestamp(0, 1)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8) | st.binary(max_size=3), inner,
                                                                max_size=4), max_leaves=12)
near_headers = st.tuples(st.sampled_from(sorted(p.TABLE)) | st.integers(-1, 80), st.lists(
    st.sampled_from([v for good, bad in PROBES.values() for v in good + bad if type(v) is not tuple]) | msgpack_values,
    max_size=8)).map(lambda row: msgpack.packb([row[0], *row[1]]))


@quick
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xc1")
def test_any_bytes_are_read_or_refused(data):
    survives_everywhere(data)


@quick
@given(msgpack_values.map(msgpack.packb))
def test_any_msgpack_is_read_or_refused(data):
    survives_everywhere(data)


@quick
@given(near_headers)
def test_what_looks_like_a_command_is_read_or_refused(data):
    survives_everywhere(data)


def wire_parts():
    """Everything of the vectors that is well-formed, and what reads it."""
    for vector in VECTORS:
        if "garbled" in vector:
            continue
        for key, read in (("header", lambda data, _: p.decode(data)),
                          ("envelope", lambda data, _: p.unpack_envelope(data)),
                          ("batch", lambda data, v: p.unpack_batch(data, v["messages"]))):
            if key in vector:
                yield vector, bytes.fromhex(vector[key]), read


def test_every_truncation_of_a_vector_is_refused():
    for vector, data, read in wire_parts():
        for end in range(len(data)):
            assert refused(read, data[:end], vector), (vector["name"], end)


def test_every_flipped_bit_of_a_vector_is_read_or_refused():
    for _, data, _ in wire_parts():
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            survives_everywhere(bytes(flipped))


def test_bytes_behind_a_vector_are_refused():
    for vector, data, read in wire_parts():
        assert refused(read, data + b"\xc0", vector), vector["name"]


def test_random_changes_of_vectors_are_read_or_refused():
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pool = [data for _, data, _ in wire_parts()]
    for _ in range(3000):
        data = bytearray(rng.choice(pool))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at:at + rng.choice((0, 0, 1, 3))] = rng.choice((b"", b"\xff", b"\x90", b"\x80", rng.randbytes(4),
                                                                 rng.choice(pool)[:12]))
        survives_everywhere(bytes(data))


# Bombs

def claim(head, size, byte):
    return bytes([head]) + size.to_bytes(4, "big") + byte


BOMBS = {
    "nested arrays": b"\x91" * 8000,
    "nested maps": b"\x81\xa0" * 4000,
    "nested deep in a map": b"\x81\xa1b" + b"\x91" * 2000 + b"\xc0",
    **{f"{head:x} claims {size}": bytes([head]) + size.to_bytes(4, "big") + b"\xc0" * 8
       for head in (0xc6, 0xc9, 0xdb, 0xdd, 0xdf) for size in (1 << 20, 1 << 31, (1 << 32) - 1)},
    **{f"{head:x} claims 65535": bytes([head, 0xff, 0xff]) for head in (0xc5, 0xc8, 0xda, 0xdc, 0xde)},
    **{f"a timestamp of {size} bytes": b"\xc7" + bytes([size]) + b"\xff" * (size + 1) for size in (0, 1, 8, 12, 16)},
    "a timestamp of year 2**55": b"\xc7\x0c\xff" + bytes(4) + b"\x7f" + b"\xff" * 7,
}
WRAPS = {
    "alone": b"%s", "in a header": b"\x92\x0d%s", "behind a header": b"\x93\x0d\x08%s",
    "in grants": b"\x94\x10\x01\xa1a\x81\xa1b%s", "in an answer": b"\x93\x47\x01\x81\xa1a%s",
    "in a batch": b"\x91%s", "in an item": b"\x91\x92\xc4\x00%s", "in headers": b"\x91\x92\xc4\x00\x81\xa1a%s",
    "in an envelope": b"\x97\xa1a%s",
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_without_room_for_what_it_announces(bomb, wrap):
    data = WRAPS[wrap].replace(b"%s", BOMBS[bomb])
    # What is well-formed after all may stand where nobody looks at it: behind the fields, in a map.
    may_be_read = bomb == "a timestamp of year 2**55" and wrap in ("behind a header", "in grants", "in an answer")
    tracemalloc.start()
    try:
        for read in (p.decode, p.unpack_envelope, lambda d: p.unpack_batch(d, 1)):
            assert refused(read, data) or (may_be_read and read is p.decode)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_header_from_a_client_has_a_length_limit():
    at_limit = msgpack.packb([13, 8, bytes(p.HEADER_BYTES_MAX - 8)])
    assert len(at_limit) == p.HEADER_BYTES_MAX
    assert p.decode(at_limit) == p.Ping(8)
    assert refused(p.decode, msgpack.packb([13, 8, bytes(p.HEADER_BYTES_MAX - 7)]))
    assert refused(p.decode, bytes(p.FRAME_BYTES_MAX))


def test_an_answer_with_rows_may_be_longer():
    rows = {"clients": [{"name": "x" * 64, "state": "connected", "waiting": 2**40, "bytes": 2**40}] * p.ANSWER_ROWS_MAX}
    assert p.decode(p.encode(p.Done(1, rows)), p.FRAME_BYTES_MAX) == p.Done(1, rows)
    refusals = [[n, "unknown-client", p.REFUSALS["unknown-client"]] for n in range(p.IN_FLIGHT_MAX)]
    assert len(p.encode(p.Accepted(bytes(8), 1, refusals))) > p.HEADER_BYTES_MAX
    assert p.decode(p.encode(p.Accepted(bytes(8), 1, refusals)), p.FRAME_BYTES_MAX) == p.Accepted(bytes(8), 1, refusals)


def test_a_batch_may_have_as_many_messages_as_the_limit_says_and_no_more():
    most = p.pack_batch([b""] * p.BATCH_MESSAGES_MAX)
    assert len(p.unpack_batch(most, p.BATCH_MESSAGES_MAX)) == p.BATCH_MESSAGES_MAX
    assert refused(p.unpack_batch, p.pack_batch([b""] * (p.BATCH_MESSAGES_MAX + 1)), p.BATCH_MESSAGES_MAX + 1)


def test_the_longest_fields_fit_into_their_frames():
    name, topic = "n" * topics.NAME_BYTES_MAX, "t" * topics.TOPIC_BYTES_MAX
    envelope = p.pack_envelope(p.Envelope(name, 2**63 - 1, p.BROADCAST, topic, bytes(8), 2**63 - 1, 2**63 - 1))
    assert len(envelope) <= p.ENVELOPE_BYTES_MAX
    assert len(p.encode(p.Deliver(2**63 - 1, 2**63 - 1, 2**63 - 1, envelope))) <= p.HEADER_BYTES_MAX
    assert len(b"\1" + live_key(topic)) <= server.FILTER_BYTES_MAX
    assert all(len(code) <= 64 and len(sentence.encode()) <= 1024 for code, sentence in p.REFUSALS.items())


# check_message

#  body                               headers                                      the refusal's code
MESSAGES = [
    (b"",                             None,                                        None),
    (bytes(p.BODY_BYTES_MAX),         {},                                          None),
    (bytes(p.BODY_BYTES_MAX),         {"a": "x" * (p.HEADERS_BYTES_MAX - 6)},      None),
    (b"x",                            {"ключ": "значение", "": ""},                None),
    (bytes(p.BODY_BYTES_MAX + 1),     None,                                        "body-too-large"),
    (b"",                             {"a": "x" * (p.HEADERS_BYTES_MAX - 5)},      "headers-too-large"),
    (b"",                             {str(n): "" for n in range(p.HEADERS_BYTES_MAX)}, "headers-too-large"),
    ("text",                          None,                                        "bad-body"),
    (bytearray(b"x"),                 None,                                        "bad-body"),
    (None,                            None,                                        "bad-body"),
    (b"",                             {"a": 1},                                    "bad-headers"),
    (b"",                             {1: "a"},                                    "bad-headers"),
    (b"",                             {"a": None},                                 "bad-headers"),
    (b"",                             {"a": b"x"},                                 "bad-headers"),
    (b"",                             [("a", "b")],                                "bad-headers"),
    (b"",                             "text",                                      "bad-headers"),
    (b"",                             {"a": "\ud800"},                             "bad-headers"),
    (b"",                             {"\udfff": "a"},                             "bad-headers"),
]


@pytest.mark.parametrize("body, headers, code", MESSAGES, ids=lambda v: repr(v)[:30])
def test_a_message_is_within_its_limits_or_refused_in_words(body, headers, code):
    if code is None:
        size = p.check_message(body, headers)
        packed = p.pack_batch([(body, headers) if headers else body])
        assert len(packed) - 3 <= size <= p.BATCH_BYTES_MAX      # 3: the batch's own head, at most
        assert len(packed) <= p.BATCH_BYTES_MAX
        return
    with pytest.raises(Misuse) as caught:
        p.check_message(body, headers)
    assert caught.value.code == code
    assert ";" in caught.value.text or "," in caught.value.text      # and what to do next


@quick
@given(st.binary(max_size=100), st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4))
def test_a_message_that_passes_is_packed_and_read_again(body, headers):
    p.check_message(body, headers)
    item = (body, headers) if headers else body
    assert p.unpack_batch(p.pack_batch([item]), 1) == (item,)
