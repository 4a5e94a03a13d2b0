"""Commands on anybody's files, one module each: `add_arguments(parser)` and `run(args)`; nothing heavy at the top."""
