"""Subcommands: parse, build a configuration, call a run, print."""
