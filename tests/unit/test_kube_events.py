"""Events fit what the API server takes."""

from datetime import UTC, datetime

from conch.kube.events import event


def test_a_long_note_is_cut_by_bytes_between_characters() -> None:
    body = event(
        namespace="ns",
        name="digits",
        uid="u",
        reason="Serving",
        message="→" * 2000,
        warning=False,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        instance="operator",
    )
    assert len(body["note"].encode()) <= 1024
    assert set(body["note"]) == {"→"}
