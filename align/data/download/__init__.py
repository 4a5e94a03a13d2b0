"""Fetching published studies: `sources` says what lies where, `transfer` gets one file, `command` does a study."""
