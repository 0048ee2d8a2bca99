import pytest

from gateway.edge.mitm.framing import CHUNKED, UNTIL_CLOSE, Chunks, Malformed, body_size, read_fields, take


def read(data, *, extensions=False, step=None):
    chunks, buf, body, done = Chunks(extensions=extensions), bytearray(), b"", False
    for at in range(0, len(data), step or len(data)):
        buf += data[at : at + (step or len(data))]
        piece, done = chunks.read(buf)
        body += piece
        while chunks.is_waiting:
            piece, done = chunks.read(buf)
            body += piece
    return body, done, chunks.trailers, bytes(buf)


GOOD = b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\ny: \r\n\r\nnext"


@pytest.mark.parametrize("step", [1, 2, 3, 7, None])
def test_chunks_are_the_same_however_they_arrive(step):
    assert read(GOOD, step=step) == (b"abc0123456789", True, [(b"X-Sum", b"1"), (b"y", b"")], b"next")


def test_a_body_that_has_not_ended_is_not_complete():
    assert read(b"3\r\nab") == (b"ab", False, [], b"")
    assert read(b"3\r\nabc\r\n0\r\n") == (b"abc", False, [], b"")
    assert read(b"3") == (b"", False, [], b"3")


@pytest.mark.parametrize(
    "data",
    [b"\n", b"\r\n", b"0x1\r\n", b"g", b" 1", b"1 ", b"+1", b"-1", b"1;x\r\n", b"1,", b"1\n", b"1\rX",
     b"12345678901234567",
     b"1\r\naXX", b"1\r\na\n", b"1\r\nab\r\n", b"0\r\n x: y\r\n", b"0\r\nx\r\n", b"0\r\nx: a\nb\r\n", b"0\r\nx : y\r\n",
     b"0\r\nx: " + b"y" * 9000, b"0\r\n" + b"x: y\r\n" * 3000],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, None])
def test_what_a_lenient_reader_would_mend_is_malformed(data, step):
    with pytest.raises(Malformed):
        read(data, step=step)


def test_an_upstream_may_use_extensions_but_not_without_end():
    data = b'3;a="b";c \r\nabc\r\n0;x\r\n\r\n'
    assert read(data, extensions=True) == (b"abc", True, [], b"")
    for bad in (b"3;" + b"a" * 300, b"3;a\nb\r\n", b"3;a\rb\r\n", b";a\r\n", b"3 4\r\n"):
        with pytest.raises(Malformed):
            read(bad, extensions=True)


def test_fields_are_read_strictly():
    fields, lengths, encodings, last = read_fields(
        [
            b"Host: a",
            b"Content-Length:5 ",
            b"transfer-encoding: Chunked",
            b"Connection: x, CLOSE",
            b"empty:",
            b"o: \xe9",
        ]
    )
    assert fields[0] == (b"Host", b"a")
    assert (lengths, encodings, last) == ([b"5"], [b"chunked"], True)
    assert fields[-2:] == ((b"empty", b""), (b"o", b"\xe9"))


@pytest.mark.parametrize(
    "line", [b"", b"x", b": y", b"x : y", b" x: y", b"x\t: y", b"x: a\nb", b"x: a\rb", b"x: a\0b", b"\xe9: y"]
)
def test_a_line_that_is_no_field_is_malformed(line):
    with pytest.raises(Malformed):
        read_fields([line])


@pytest.mark.parametrize("line", [b"a:" + b" " * 500_000 + b"\0", b"a: x" + b" " * 500_000 + b"\0"])
def test_a_field_of_spaces_is_read_in_one_go(line):
    with pytest.raises(Malformed):
        read_fields([line])


def test_a_body_has_one_size():
    assert body_size([], [], 0) == 0
    assert body_size([], [], UNTIL_CLOSE) == UNTIL_CLOSE
    assert body_size([b"12"], [], 0) == 12
    assert body_size([], [b"chunked"], 0) == CHUNKED


@pytest.mark.parametrize(
    ("lengths", "encodings"),
    [([b"1", b"1"], []), ([b"1"], [b"chunked"]), ([], [b"gzip"]), ([], [b"chunked", b"chunked"]),
     ([b"01"], []), ([b""], []),
     ([b"-1"], []), ([b"1" * 20], []), ([], [b""]), ([b"1,1"], []), ([b"0x1"], [])],
)  # fmt: skip
def test_a_body_of_two_sizes_is_malformed(lengths, encodings):
    with pytest.raises(Malformed):
        body_size(lengths, encodings, 0)


def test_taking_leaves_the_rest():
    buf = bytearray(b"abcdef")
    assert (take(buf, 2), take(buf, 0), bytes(buf), take(buf, 99), bytes(buf)) == (b"ab", b"", b"cdef", b"cdef", b"")
