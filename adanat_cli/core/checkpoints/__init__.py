"""What lives on disk: model folders, other people's weight files, and training states."""
