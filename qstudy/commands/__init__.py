"""The command line, one file per subcommand; what takes long to import is imported when the command runs."""
