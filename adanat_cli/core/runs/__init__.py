"""One module per subcommand, joining the rooms."""
