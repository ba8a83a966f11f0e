"""Traces: anybody's CSV or access log, and what is said of one that cannot be read."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conch.simulate import trace as module
from conch.simulate.trace import TraceError, read_trace


def _written(folder: Path, text: str) -> Path:
    path = folder / "access.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        pytest.param(
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.4799600,3180,8\n",
            None,
            [0, 0.5],
            id="azure",
        ),
        pytest.param("time,path\n2026-01-01T00:00:01Z,/a\n2026-01-01T01:00:00+01:00,/b\n", None, [0, 1], id="zones"),
        pytest.param("user;at\n7;2026-01-01T00:00:00.25\n8;2026-01-01T00:00:02\n", None, [0, 1.75], id="semicolons"),
        pytest.param("id\tts\n1\t1767225600\n2\t1767225603\n", None, [0, 3], id="seconds since 1970, tabs"),
        pytest.param("id,ms\n1,1767225600250\n2,1767225600500\n", None, [0, 0.25], id="milliseconds"),
        pytest.param("us\n1767225600250000\n1767225600500000\n", None, [0, 0.25], id="microseconds"),
        pytest.param("ns\n1767225600250000000\n1767225600500000000\n", None, [0, 0.25], id="nanoseconds"),
        pytest.param("0.5\n2.5\n1.0\n", None, [0, 0.5, 2], id="no header, seconds from anywhere, unordered"),
        pytest.param("a,b\n1,5\n2,9\n", "b", [0, 4], id="a column by name"),
        pytest.param("a,b\n1,5\n2,9\n", "2", [0, 4], id="a column by number"),
        pytest.param(
            "begin,end\n2026-01-01T00:00:00,2026-01-01T00:00:09\n2026-01-01T00:00:01,2026-01-01T00:00:10\n",
            "end",
            [0, 1],
            id="one of two columns of times",
        ),
        pytest.param(
            'received,"the path, quoted"\n2026-01-01T00:00:00,"/a,b"\n\n2026-01-01T00:00:01,/c\n',
            None,
            [0, 1],
            id="quotes and an empty line",
        ),
        pytest.param(
            '10.0.0.1 - - [16/Nov/2023:18:17:03 +0000] "GET / HTTP/1.1" 200 5\n'
            '10.0.0.2 - - [16/Nov/2023:19:17:05 +0100] "GET / HTTP/1.1" 200 5\n',
            None,
            [0, 2],
            id="common log format",
        ),
        pytest.param(
            '[2026-01-01T00:00:00.000Z] "POST /v2/models/a/infer HTTP/1.1" 200\n'
            '[2026-01-01T00:00:00.750Z] "POST /v2/models/a/infer HTTP/1.1" 200\n',
            None,
            [0, 0.75],
            id="Envoy's log",
        ),
    ],
)
def test_reads(tmp_path: Path, text: str, column: str | None, expected: list[float]) -> None:
    trace = read_trace(_written(tmp_path, text), column)
    assert trace.seconds.tolist() == pytest.approx(expected, abs=1e-6)
    assert trace.span_seconds == pytest.approx(expected[-1], abs=1e-6)
    assert trace.requests == len(expected)


def test_reads_what_is_gzipped_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "access.csv"
    path.write_bytes(gzip.compress("\ufefftime\n2026-01-01T00:00:00Z\n2026-01-01T00:00:04Z\n".encode()))
    trace = read_trace(path)
    assert trace.seconds.tolist() == [0, 4]
    assert trace.began == datetime(2026, 1, 1, tzinfo=UTC)
    assert trace.mean_rate == 0.5


def test_a_trace_that_counts_from_anywhere_has_no_date(tmp_path: Path) -> None:
    assert read_trace(_written(tmp_path, "7\n8\n")).began is None


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        pytest.param("", None, "holds no request", id="empty"),
        pytest.param("\n \n", None, "holds no request", id="blank"),
        pytest.param("time,path\n", None, "holds no request", id="a header alone"),
        pytest.param(",,\n", None, "holds no request", id="commas alone"),
        pytest.param("a,b\nx,y,2026-01-01T00:00:00\n", None, "name it with --column", id="a cell without a name"),
        pytest.param("time\n2026-01-01T00:00:00\nyesterday\n", None, "line 3: 'yesterday' is no time", id="no time"),
        pytest.param("time\n2026-01-01T00:00:00\n2026-01-01T00:00:00Z\n", None, "line 3", id="a zone now and then"),
        pytest.param("time\n2026-01-01T00:00:00\n1767225600\n", None, "line 3", id="two forms"),
        pytest.param("at,x\n2026-01-01T00:00:00,1\n\n2026-01-01T00:00:00,\n,2\n", None, "line 5", id="an empty cell"),
        pytest.param("x,at\n1,2026-01-01T00:00:00\n1\n", None, "line 3: it has 1 columns, and at is no. 2", id="short"),
        pytest.param("a,b\n1,2\n3,4\n", None, "is not clear; name it with --column, as one of: a, b", id="numbers"),
        pytest.param(
            "a,b\n2026-01-01T00:00:00,2026-01-01T00:00:00\n", None, "name it with --column", id="two columns of times"
        ),
        pytest.param("a,b\n1,2\n", "c", "has no column c; there are: a, b", id="no such column"),
        pytest.param("t\nnan\n", "t", "line 2: 'nan' is no time", id="not a number"),
        pytest.param(
            "[2026-01-01T00:00:00Z] GET /\n[2026-01-01T00:00:00Z] GET /\nrestarted\n", None, "line 3", id="a log's line"
        ),
        pytest.param("0\n99999999\n", None, "spans 1157 days", id="too long"),
        pytest.param("t,x\n1," + "y" * 200_000 + "\n", "t", "line 2: this is no CSV", id="a cell too large"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path: Path, text: str, column: str | None, words: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(TraceError) as raised:
        read_trace(path, column)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_says_that_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "missing.csv")
    whole = gzip.compress(b"".join(b"%d\n" % number for number in range(5000)))
    broken = tmp_path / "broken.gz"
    for damaged in (whole[:-20], whole[:500] + b"\xff" * 500 + whole[1000:]):
        broken.write_bytes(damaged)
        with pytest.raises(TraceError, match="cannot be read"):
            read_trace(broken)


def test_numbers_that_are_no_date_are_played_all_the_same(tmp_path: Path) -> None:
    trace = read_trace(_written(tmp_path, "1e30\n1e30\n"))
    assert (trace.began, trace.requests) == (None, 2)


def test_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MOST", 2)
    with pytest.raises(TraceError, match="more than 2 requests"):
        read_trace(_written(tmp_path, "1\n2\n3\n"))
