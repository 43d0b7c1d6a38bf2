"""Tests of archiving to the Hub."""
