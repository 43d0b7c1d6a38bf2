"""What can go wrong, sorted by what the caller does next.

Every message names the setting, file or topic to change. Nothing here carries a secret.
"""


class EvalsinkError(Exception):
    """Base of all errors that a user can act on; the command line prints them without a traceback."""

    exit_code = 1


class UsageError(EvalsinkError):
    """The call or a setting is wrong: change it and call again. Nothing was done."""

    exit_code = 2


class BrokerError(EvalsinkError):
    """Kafka cannot be reached or lacks what is needed (topics, rights).

    Nothing is lost; start again when it is mended.
    """

    exit_code = 3


class BrokerAwayError(BrokerError):
    """Kafka does not answer now. Who has time asks again."""


class StateError(EvalsinkError):
    """The state folder cannot be used (locked by another process, written by a newer version)."""

    exit_code = 4


class VerificationError(EvalsinkError):
    """A published run differs from what its results JSON says."""

    exit_code = 1


class DeadLetterLimit(EvalsinkError):  # noqa: N818 - it names a limit, and reads as one in a log
    """So many records in a row became dead letters that stopping is better than going on. Nothing is lost."""

    exit_code = 5


class DiskFullError(EvalsinkError):
    """The worker was asked to stop while the disk was full. Nothing is lost: the log is read again."""

    exit_code = 6


class HubError(EvalsinkError):
    """The Hub did not take what it should; runs wait in the outbox, or are parked there. Nothing is lost."""

    exit_code = 7


class SpoolError(EvalsinkError):
    """The spool does not hold what its index says: a disk fault.

    The local state is to be dropped; the log rebuilds it.
    """

    exit_code = 4


class DeterminismError(EvalsinkError):
    """A published file of this name exists with other bytes.

    It is kept; nothing is acknowledged; somebody must look.
    """
