"""The stage of the tests of workers."""

from tests.worker.conftest import real_stage

__all__ = ["real_stage"]
