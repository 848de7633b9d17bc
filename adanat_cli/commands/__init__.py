"""Subcommands: parse, build a configuration, call a job, print."""
