"""Runnable experiments: each composes its configuration from `conf/`, calls the library and writes a run folder."""
