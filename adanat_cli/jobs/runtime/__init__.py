"""What every job needs to run: devices, processes, locks, signals, seeds, and reporting."""
