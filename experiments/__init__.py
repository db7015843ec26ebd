"""Runnable experiments: each composes its configuration from `conf/` and writes a run folder."""
