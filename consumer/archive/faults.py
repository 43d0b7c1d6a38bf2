"""What the Hub can say instead of yes, sorted by what the pusher does next.

No message carries a secret: who raises one has taken the token out of its text.
"""


class HubFault(Exception):  # noqa: N818 - the families below are no errors of ours, but answers
    """Base of all."""


class Stale(HubFault):
    """Somebody committed since the listing was read: read it again, and build the commit anew."""


class Busy(HubFault):
    """The repository takes one commit at a time, and is at another: try again in a moment."""


class Throttled(HubFault):
    """Too many requests or commits: not before `after_s` seconds."""

    def __init__(self, reason: str, after_s: float) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Away(HubFault):
    """No answer, or none that tells: what was asked for may have been done or not. Ask again later.

    `was_sent`: a commit was on its way; perhaps it was too large for the time it was given.
    """

    was_sent = False


class Refused(HubFault):
    """No, and asking again changes nothing until somebody mends it: token, rights, content.

    `whole_repo`: whatever else is sent there would be refused too.
    """

    def __init__(self, reason: str, *, whole_repo: bool) -> None:
        super().__init__(reason)
        self.whole_repo = whole_repo
