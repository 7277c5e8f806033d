"""Errors: whose fault it is, a stable code, one sentence with the next step.

    BackboneError
    |-- Misuse          you called it wrongly; fix the call, the client is fine   (also a ValueError)
    |-- Refused         the hub said no; see .code and the text, the client is fine
    |   |-- KeyRefused  the hub does not take this client's key; ask its operator
    |   `-- OutboxFull  too much is waiting here for the hub; wait, then send again
    |-- Garbled         the peer's bytes make no sense; that message is dropped and counted
    |-- Damaged         what the disk gave back is not what was written
    `-- Silence         no answer in time; try again, numbers make it safe        (also a TimeoutError)
        `-- Unreachable the hub cannot be reached, or is not the hub of the profile
"""


class BackboneError(Exception):
    """Any failure of the backbone: a stable `code` and a sentence, `text`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} [{code}]")
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.code, self.text)


class Misuse(BackboneError, ValueError):
    """The call itself is wrong: an argument, an order of calls, a file."""


class Refused(BackboneError):
    """The hub said no; nothing of what was refused is stored."""


class KeyRefused(Refused):
    """The hub does not take this client's key: unknown to it, or revoked."""


class OutboxFull(Refused):
    """The client's own outbox holds all that it may; nothing was sent to the hub."""


class Garbled(BackboneError):
    """Bytes from the other side that do not follow the protocol."""


class Damaged(BackboneError):
    """Stored data that fails its check."""


class Silence(BackboneError, TimeoutError):
    """No answer in time. What was asked may or may not have been done."""


class Unreachable(Silence):
    """No connection to the hub of the profile."""
